// `openai` for Node behind JSON lines: `node openai.mjs PACKAGE`, a call a line on stdin, its outcome on stdout.
import { outcomes } from "./lines.mjs";

const { default: OpenAI, toFile } = await import(process.argv[2]);

await outcomes(async ({ do: verb, base, key, body }, seen) => {
  const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0, timeout: 30_000 });
  const completions = client.chat.completions.stream ? client.chat.completions : client.beta.chat.completions;
  switch (verb) {
    case "whole":
      return client.chat.completions.create(body);
    case "chunks":
      for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) seen.push(chunk);
      return seen;
    case "accumulated":
      return completions.stream(body).finalChatCompletion();
    case "responded":
      return client.responses.create(body);
    case "response-accumulated":
      return client.responses.stream(body).finalResponse();
    case "models":
      return (await client.models.list()).data;
    case "files": {
      const made = await client.files.create({ ...body, file: await toFile(Buffer.from("Hello Kimi"), "notes.txt") });
      const waited = await client.files.waitForProcessing(made.id, { maxWait: 1000 });
      const shown = await client.files.retrieve(made.id);
      const listed = [];
      for await (const file of client.files.list({ limit: 1 })) listed.push(file);
      const text = await (await client.files.content(made.id)).text();
      const gone = await (client.files.delete ?? client.files.del).call(client.files, made.id);
      return { made, shown, waited, listed, text, gone };
    }
    case "kept": {
      const { id } = await client.responses.create(body);
      const shown = await client.responses.retrieve(id);
      const items = [];
      for await (const item of client.responses.inputItems.list(id, { limit: 1, order: "asc" })) items.push(item);
      const refused = await client.responses.cancel(id).then(() => null, (error) => error.message);
      await (client.responses.delete ?? client.responses.del).call(client.responses, id);
      const gone = await client.responses.retrieve(id).then(() => null, (error) => error.status);
      return { id, shown, items, refused, gone };
    }
    case "batches": {
      const file = await client.files.create({ purpose: "batch", file: await toFile(Buffer.from(body.lines), "in.jsonl") });
      const wanted = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" };
      const made = await client.batches.create(wanted);
      const shown = await client.batches.retrieve(made.id);
      const listed = [];
      for await (const batch of client.batches.list({ limit: 1 })) listed.push(batch);
      const cancelled = await client.batches.cancel(made.id);
      return { made, shown, listed, cancelled };
    }
  }
});
