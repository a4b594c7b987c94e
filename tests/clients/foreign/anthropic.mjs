// `@anthropic-ai/sdk` for Node behind JSON lines: `node anthropic.mjs PACKAGE`.
import { outcomes } from "./lines.mjs";

const { default: Anthropic, toFile } = await import(process.argv[2]);

await outcomes(async ({ do: verb, base, key, token, body }, seen) => {
  const auth = token ? { apiKey: null, authToken: token } : { apiKey: key };
  const client = new Anthropic({ baseURL: base, ...auth, maxRetries: 0, timeout: 30_000 });
  switch (verb) {
    case "whole":
      return client.messages.create(body);
    case "chunks":
      for await (const event of await client.messages.create({ ...body, stream: true })) seen.push(event);
      return seen;
    case "accumulated":
      return client.messages.stream(body).finalMessage();
    case "count":
      return client.messages.countTokens(body);
    case "files": {
      const files = client.files ?? client.beta.files;
      const made = await files.upload({ file: await toFile(Buffer.from("Hello Kimi"), "notes.txt") });
      const shown = await files.retrieveMetadata(made.id);
      const listed = [];
      for await (const file of files.list({ limit: 1 })) listed.push(file);
      const refused = await files.download(made.id).catch((error) => error.status);
      return { made, shown, listed, refused, gone: await files.delete(made.id) };
    }
    case "models":
      for await (const model of client.models.list(body)) seen.push(model);
      return seen;
    case "model":
      return client.models.retrieve(body.model);
  }
});
