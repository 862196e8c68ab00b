// The same with OpenMeter's own SDK: the listener takes what it sends, one event or several.

import { OpenMeter } from "@openmeter/sdk";

const openmeter = new OpenMeter({ baseUrl: process.env.EVENTS_URL ?? "http://localhost:8888" });

function event(id: string, tokens: number) {
  return {
    specversion: "1.0",
    id,
    source: "my-app",
    type: "openai",
    subject: "customer-3",
    data: { model: "gpt-4o-2024-08-06", prompt_tokens: tokens, completion_tokens: 1 },
  };
}

await openmeter.events.ingest(event("one", 10));
await openmeter.events.ingest([event("two", 20), event("three", 30)]);
// Reported again, it counts once.
await openmeter.events.ingest(event("one", 10));
console.log("reported");
