// A loop with one tool on the Vercel AI SDK: `program.mjs PROVIDER MODEL`, base and key from the environment.
import { writeFileSync } from "node:fs";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createMoonshotAI } from "@ai-sdk/moonshotai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const [provider, model] = process.argv.slice(2);
const settings = { baseURL: process.env.BASE, apiKey: process.env.KEY };
const providers = {
  "openai-compatible": () => createOpenAICompatible({ ...settings, name: "kimi", includeUsage: true })(model),
  moonshotai: () => createMoonshotAI(settings)(model),
  openai: () => createOpenAI(settings)(model),
  anthropic: () => createAnthropic(settings)(model),
};
const write_file = tool({
  description: "Write a file",
  inputSchema: z.object({ path: z.string(), text: z.string() }),
  execute: async ({ path, text }) => {
    writeFileSync(path, text);
    return "written";
  },
});

let failure;
const result = streamText({
  model: providers[provider](),
  prompt: "Write hello.txt",
  tools: { write_file },
  stopWhen: isStepCount(5),
  maxRetries: 0,
  onError: ({ error }) => (failure ??= error),
});
for await (const _ of result.textStream);
if (failure) {
  console.error(`${failure.name} ${failure.statusCode}: ${failure.message}`);
  process.exit(1);
}
const usage = await result.totalUsage;
console.log(JSON.stringify({ text: await result.text, reasoning: await result.reasoningText, usage }));
