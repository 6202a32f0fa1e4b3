// Ollama's own JavaScript client: what its users do, unchanged. Prints `ok NAME` after each part.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const [url, template] = process.argv.slice(2);
const client = new Ollama({ host: url });
const model = "smollm2:135m";
const options = { num_predict: 8, temperature: 0 };
const messages = [{ role: "user", content: "Say hello." }];
// Each answer to this is the same on every processor, cached or not (COUNTING of tests/live.py).
const counted = [{ role: "user", content: "Count." }, { role: "assistant", content: "1, 2, 3, 4, 5, 6, 7, 8, 9" }];
const counting = [...counted, ...counted, ...counted, ...counted, counted[0]];
const surely = { ...options, repeat_penalty: 1 };

const parts = {
  async chat() {
    const answer = await client.chat({ model, messages, options });
    assert.ok(answer.message.content);
    assert.equal(answer.message.role, "assistant");
    assert.equal(answer.done, true);
    assert.ok(answer.total_duration > 0 && answer.eval_count > 0);
    assert.ok(Date.parse(answer.created_at));
  },

  async stream() {
    const asked = { model, messages: counting, options: surely };
    const whole = (await client.chat(asked)).message.content;
    const chunks = [];
    for await (const chunk of await client.chat({ ...asked, stream: true })) chunks.push(chunk);
    assert.ok(chunks.length > 3);
    assert.equal(chunks.map((one) => one.message.content).join(""), whole);
    assert.deepEqual([...new Set(chunks.map((one) => one.done))], [false, true]);
  },

  async generate() {
    const answer = await client.generate({ model, prompt: "Say hello.", options });
    assert.ok(answer.response && answer.context.length > 5);
    const loaded = await client.generate({ model, prompt: "", keep_alive: "5m" });
    assert.equal(loaded.done_reason, "load");
  },

  async structured() {
    const format = {
      type: "object",
      properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer" } },
      required: ["name", "age"],
    };
    const answer = await client.chat({
      model, format, messages: [{ role: "user", content: "Ada is 36 years old." }],
      options: { num_predict: 60, temperature: 0 },
    });
    const told = JSON.parse(answer.message.content);
    assert.equal(typeof told.name, "string");
    assert.ok(Number.isInteger(told.age));
  },

  async create() {
    const statuses = [];
    for await (const one of await client.create({ model: "caller-js", from: model, template, stream: true })) {
      statuses.push(one.status);
    }
    assert.equal(statuses.at(-1), "success");
    assert.ok((await client.show({ model: "caller-js" })).capabilities.includes("tools"));
  },

  async tools() {
    const tools = [{
      type: "function",
      function: {
        name: "get_weather", description: "The weather of a city.",
        parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      },
    }];
    const asked = [{ role: "user", content: "What is the weather in Rome?" }];
    const first = await client.chat({ model: "caller-js", messages: asked, tools, options });
    assert.equal(first.message.role, "assistant");
    const call = { function: { name: "get_weather", arguments: { city: "Rome" } } };
    const then = [...asked, { role: "assistant", content: "", tool_calls: [call] },
      { role: "tool", tool_name: "get_weather", content: "sunny" }];
    assert.ok((await client.chat({ model: "caller-js", messages: then, tools, options })).done);
    await assert.rejects(client.chat({ model, messages: asked, tools }), /does not support tools/);
  },

  async embed() {
    const input = ["The ferry left at nine.", "The boat went in the morning.", "Tax law is dull."];
    const { embeddings } = await client.embed({ model: "all-minilm", input });
    const dot = (a, b) => a.reduce((sum, n, i) => sum + n * b[i], 0);
    assert.deepEqual(embeddings.map((one) => one.length), [384, 384, 384]);
    assert.ok(dot(embeddings[0], embeddings[1]) > dot(embeddings[0], embeddings[2]));
    assert.ok(Math.abs(dot(embeddings[0], embeddings[0]) - 1) < 1e-4);
    assert.equal((await client.embeddings({ model: "all-minilm", prompt: "one" })).embedding.length, 384);
  },

  async lists() {
    const { models } = await client.list();
    assert.ok(models.some((one) => one.name === "caller-js:latest" && one.digest && one.size));
    assert.ok((await client.ps()).models.some((one) => one.name === model));
    await client.copy({ source: "caller-js", destination: "copied-js" });
    await client.delete({ model: "copied-js" });
    assert.ok(!(await client.list()).models.some((one) => one.name.startsWith("copied-js")));
    assert.match((await client.version()).version, /^\d+\.\d+\.\d+/);
  },

  async errors() {
    await assert.rejects(client.chat({ model: "none-such", messages }), (error) => {
      assert.equal(error.name, "ResponseError");
      assert.equal(error.status_code, 404);
      return /model 'none-such' not found/.test(error.message);
    });
    await assert.rejects(client.embed({ model, input: "one" }), /does not support/);
    await assert.rejects(client.chat({ model, messages, options: { num_ctx: "many" } }), /must be of type integer/);
  },

  async cancel() {
    const long = { model, prompt: "Write a very long story about a ferry.", options: { num_predict: 2000 }, stream: true };
    const stream = await client.generate(long);
    let n = 0;
    await assert.rejects(async () => {
      for await (const _ of stream) if (++n === 3) stream.abort();
    }, { name: "AbortError" });
    assert.ok(n >= 3 && n < 50);
  },
};

for (const [name, part] of Object.entries(parts)) {
  await part();
  console.log(`ok ${name}`);
}
