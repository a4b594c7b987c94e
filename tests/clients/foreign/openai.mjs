// `openai` for Node behind JSON lines: `node openai.mjs PACKAGE`, a call a line on stdin, its outcome on stdout.
import { outcomes } from "./lines.mjs";

const { default: OpenAI } = await import(process.argv[2]);

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
  }
});
