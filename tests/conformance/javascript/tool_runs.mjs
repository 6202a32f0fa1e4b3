// Whole tool runs of JavaScript's clients, whole and streamed: call, result, answer. Prints `ok NAME` after each.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { Ollama } from "ollama";
import { createOllama } from "ollama-ai-provider-v2";
import OpenAI from "openai";

const [url] = process.argv.slice(2);
const model = "caller-js";
const question = { role: "user", content: "What is the weather in Rome?" };
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const description = "Tell the weather of a city.";
const weather = ({ city }) => `Rain in ${city}.`;
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const named = { name: "get_weather", description, parameters };

async function vercel(languageModel, stream) {
  const tools = { get_weather: tool({ description, inputSchema: jsonSchema(parameters), execute: weather }) };
  const sent = { model: languageModel, messages: [question], tools, stopWhen: stepCountIs(3), maxRetries: 0 };
  return stream ? await streamText(sent).text : (await generateText(sent)).text;
}

const runs = {
  async openai_chat(stream) {
    const runner = openai.chat.completions.runTools({
      model, messages: [question], stream,
      tools: [{ type: "function", function: { ...named, parse: JSON.parse, function: weather } }],
    });
    return await runner.finalContent();
  },

  async openai_responses(stream) {
    const input = [question];
    for (;;) {
      const sent = { model, input, store: false, tools: [{ type: "function", strict: false, ...named }] };
      const answer = stream ? await openai.responses.stream(sent).finalResponse() : await openai.responses.create(sent);
      const calls = answer.output.filter((item) => item.type === "function_call");
      if (!calls.length) return answer.output_text;
      input.push(...answer.output);
      for (const { call_id, arguments: text } of calls) {
        input.push({ type: "function_call_output", call_id, output: weather(JSON.parse(text)) });
      }
    }
  },

  async anthropic(stream) {
    const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
    const tools = [betaTool({ name: "get_weather", description, inputSchema: parameters, run: weather })];
    const runner = client.beta.messages.toolRunner({ model, max_tokens: 40, messages: [question], tools, stream });
    return (await runner.runUntilDone()).content[0].text;
  },

  async ollama(stream) {
    const client = new Ollama({ host: url });
    const messages = [question];
    for (;;) {
      const sent = { model, messages, tools: [{ type: "function", function: named }], stream };
      const parts = [];
      if (stream) for await (const part of await client.chat(sent)) parts.push(part);
      else parts.push(await client.chat(sent));
      const calls = parts.flatMap((part) => part.message.tool_calls ?? []);
      const content = parts.map((part) => part.message.content).join("");
      if (!calls.length) return content;
      messages.push({ role: "assistant", content, tool_calls: calls });
      for (const call of calls) {
        messages.push({ role: "tool", tool_name: call.function.name, content: weather(call.function.arguments) });
      }
    }
  },

  vercel_compatible: (stream) => vercel(createOpenAICompatible({ name: "paddock", baseURL: `${url}/v1` })(model), stream),
  vercel_ollama: (stream) => vercel(createOllama({ baseURL: `${url}/api` })(model), stream),
};

for (const [name, run] of Object.entries(runs)) {
  for (const stream of [false, true]) {
    const text = await run(stream).catch((error) => assert.fail(`${name}: ${error.stack}`));
    assert.equal(text.trim(), "The tool says: Rain in Rome.", `${name}, ${stream ? "streamed" : "whole"}`);
  }
  console.log(`ok ${name}`);
}
