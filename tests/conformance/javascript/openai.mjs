// OpenAI's own JavaScript client: what its users do, unchanged. Prints `ok NAME` after each part.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [url] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = "smollm2:135m";
const messages = [{ role: "user", content: "Say hello." }];
const greedy = { model, messages, max_tokens: 8, temperature: 0 };
// Each answer to this is the same on every processor, cached or not (COUNTING of tests/live.py).
const counted = [{ role: "user", content: "Count." }, { role: "assistant", content: "1, 2, 3, 4, 5, 6, 7, 8, 9" }];
const surely = { ...greedy, messages: [...counted, ...counted, ...counted, ...counted, counted[0]] };

const tools = [{
  type: "function",
  function: {
    name: "get_weather", description: "The weather of a city.",
    parameters: {
      type: "object", properties: { city: { type: "string", maxLength: 20 } }, required: ["city"],
      additionalProperties: false,
    },
  },
}];

const parts = {
  async chat() {
    const answer = await client.chat.completions.create(greedy);
    assert.match(answer.id, /^chatcmpl-/);
    assert.equal(answer.object, "chat.completion");
    assert.ok(answer.choices[0].message.content);
    assert.ok(["stop", "length"].includes(answer.choices[0].finish_reason));
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  },

  async stream() {
    const whole = (await client.chat.completions.create(surely)).choices[0].message.content;
    const chunks = [];
    const stream = await client.chat.completions.create({
      ...surely, stream: true, stream_options: { include_usage: true },
    });
    for await (const chunk of stream) chunks.push(chunk);
    assert.equal(chunks.map((one) => one.choices[0]?.delta.content ?? "").join(""), whole);
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
    assert.equal(new Set(chunks.map((one) => one.id)).size, 1);
  },

  async choices() {
    const answer = await client.chat.completions.create({
      ...greedy, temperature: 1, n: 3, seed: 7, logprobs: true, top_logprobs: 2,
    });
    assert.deepEqual(answer.choices.map((one) => one.index), [0, 1, 2]);
    const [token] = answer.choices[0].logprobs.content;
    assert.ok(token.logprob <= 0 && token.top_logprobs.length === 2);
  },

  async structured() {
    const schema = {
      type: "object", additionalProperties: false, required: ["name", "age"],
      properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer" } },
    };
    const answer = await client.chat.completions.parse({
      model, temperature: 0, max_tokens: 60,
      messages: [{ role: "user", content: "Ada is 36 years old." }],
      response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema } },
    });
    const told = JSON.parse(answer.choices[0].message.content);
    assert.equal(typeof told.name, "string");
    assert.ok(Number.isInteger(told.age));
  },

  async tools() {
    const asked = [{ role: "user", content: "What is the weather in Rome?" }];
    const first = await client.chat.completions.create({
      model: "caller-js", messages: asked, tools, tool_choice: "required", max_tokens: 60, temperature: 0,
    });
    const [choice] = first.choices;
    assert.equal(choice.finish_reason, "tool_calls");
    const [call] = choice.message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
    const then = [...asked, choice.message, { role: "tool", tool_call_id: call.id, content: "sunny" }];
    const last = await client.chat.completions.create({ model: "caller-js", messages: then, tools, max_tokens: 8 });
    assert.equal(last.choices[0].message.role, "assistant");
  },

  async completions() {
    const answer = await client.completions.create({ model, prompt: "Once upon a", max_tokens: 4, temperature: 0 });
    assert.match(answer.id, /^cmpl-/);
    assert.ok(answer.choices[0].text);
  },

  async embeddings() {
    // The client asks for base64 by itself and decodes it.
    const { data } = await client.embeddings.create({ model: "all-minilm", input: ["one", "two"] });
    assert.deepEqual(data.map((one) => [one.index, one.embedding.length]), [[0, 384], [1, 384]]);
    const plain = await client.embeddings.create({ model: "all-minilm", input: "one", encoding_format: "float" });
    plain.data[0].embedding.forEach((n, i) => assert.ok(Math.abs(n - data[0].embedding[i]) < 1e-3));
  },

  async responses() {
    const answer = await client.responses.create({ model, input: "Say hello.", max_output_tokens: 8 });
    assert.ok(answer.output_text);
    const kinds = [];
    for await (const event of await client.responses.create({
      model, input: "Say hello.", max_output_tokens: 8, stream: true,
    })) kinds.push(event.type);
    assert.equal(kinds[0], "response.created");
    assert.ok(kinds.includes("response.output_text.delta"));
    assert.match(kinds.at(-1), /^response\.(completed|incomplete)$/);
  },

  async models() {
    const names = [];
    for await (const one of client.models.list()) names.push(one.id);
    assert.ok(names.includes(model));
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async errors() {
    await assert.rejects(client.chat.completions.create({ ...greedy, model: "none-such" }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      return error.status === 404 && /none-such/.test(error.message);
    });
    await assert.rejects(client.chat.completions.create({ ...greedy, messages: [] }), OpenAI.BadRequestError);
    await assert.rejects(client.models.retrieve("none-such"), OpenAI.NotFoundError);
  },

  async cancel() {
    const stream = await client.chat.completions.create({
      model, messages: [{ role: "user", content: "Write a very long story about a ferry." }],
      max_tokens: 2000, stream: true,
    });
    let n = 0;
    for await (const _ of stream) if (++n === 3) stream.controller.abort();
    assert.ok(n >= 3 && n < 50);
  },
};

for (const [name, part] of Object.entries(parts)) {
  await part();
  console.log(`ok ${name}`);
}
