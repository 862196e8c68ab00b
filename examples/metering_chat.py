"""Report each response's usage with the customer it was for: chat completions, responses, embeddings.

Try it without a key:  pip install openai 'otel-openai-usage[metering]'
                       otel-openai-usage simulate --port 8080
                       OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=sk-simulated python examples/metering_chat.py
It reports to OPENMETER_URL, by default http://localhost:8888: an exporter with `events: {enabled: true}`.
"""

from openai import OpenAI

from otel_openai_metering import Meter


def main() -> None:
    """One call of each sort, for three customers."""
    with OpenAI() as client, Meter(source="examples") as meter:
        completion = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Say hello."}]
        )
        meter.record(completion, subject="customer-1", team="greetings")
        print(completion.choices[0].message.content)

        response = client.responses.create(model="o3", input="How many tokens is this?")
        meter.record(response, subject="customer-2", team="questions")
        print(response.output_text)

        embedding = client.embeddings.create(
            model="text-embedding-3-small", input="To be found again"
        )
        meter.record(embedding, subject="customer-3", team="search")
        print(len(embedding.data[0].embedding), "dimensions")
    print(meter.counts)


if __name__ == "__main__":
    main()
