// Reports one response of OpenAI to the events listener of otel-openai-usage, with plain fetch.

const ADDRESS = process.env.EVENTS_URL ?? "http://localhost:8888";
const TOKEN = process.env.EVENTS_TOKEN;

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
  completion_tokens_details?: { reasoning_tokens?: number } | null;
}

export interface Response {
  id: string;
  created: number;
  model: string;
  usage?: Usage | null;
}

// The id of the response is the id of the event: reported twice, it counts once.
export async function report(response: Response, subject: string): Promise<void> {
  const event = {
    specversion: "1.0",
    id: response.id,
    source: "my-app",
    type: "openai",
    subject,
    time: new Date(response.created * 1000).toISOString(),
    data: { model: response.model, ...response.usage },
  };
  const answer = await fetch(`${ADDRESS}/api/v1/events`, {
    method: "POST",
    headers: {
      "Content-Type": "application/cloudevents+json",
      ...(TOKEN ? { Authorization: `Bearer ${TOKEN}` } : {}),
    },
    body: JSON.stringify(event),
  });
  if (!answer.ok) {
    throw new Error(`the usage of ${response.id} was not taken: ${answer.status} ${await answer.text()}`);
  }
}
