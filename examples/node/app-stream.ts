// Streams an answer, and reports what it used: with `include_usage` the last chunk tells it.

import OpenAI from "openai";
import { report, type Response } from "./events.js";

const openai = new OpenAI();

const stream = await openai.chat.completions.create({
  model: "gpt-4o",
  messages: [{ role: "user", content: "How many tokens does this cost?" }],
  stream: true,
  stream_options: { include_usage: true },
});
let last: Response | undefined;
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");
  if (chunk.usage) {
    last = chunk;
  }
}
console.log();
if (!last) {
  throw new Error("the stream ended without usage, so nothing can be reported");
}
await report(last, "customer-2");
console.log(last.usage?.total_tokens, "tokens reported");
