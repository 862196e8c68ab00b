// Asks OpenAI, and reports what the answer used to the account of a customer.
//
//   otel-openai-usage run -c …            with events.enabled
//   npm install && OPENAI_API_KEY=sk-… npm start

import OpenAI from "openai";
import { report } from "./events.js";

const openai = new OpenAI();

const completion = await openai.chat.completions.create({
  model: "gpt-4o",
  messages: [{ role: "user", content: "How many tokens does this cost?" }],
});
await report(completion, "customer-1");
console.log(completion.usage?.total_tokens, "tokens reported");
