// A JSON line in, a JSON line out: what the call gave, or its exception, with what was seen before it.
import { createInterface } from "node:readline";

function classes(error) {
  const names = [];
  for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) names.push(kind.name);
  return names;
}

export async function outcomes(call) {
  for await (const line of createInterface({ input: process.stdin })) {
    const seen = [];
    let outcome;
    try {
      outcome = { value: await call(JSON.parse(line), seen) };
    } catch (error) {
      const { status = null, code = null, message } = error;
      outcome = { classes: classes(error), status, code, message, seen };
    }
    console.log(JSON.stringify(outcome));
  }
}
