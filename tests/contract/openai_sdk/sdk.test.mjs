// The official openai SDK for Node.js, unmodified, against the kgents at KGENTS_URL.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.KGENTS_URL}/v1`, apiKey: process.env.KGENTS_API_KEY, maxRetries: 0,
});
const user = (content) => [{ role: "user", content }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

test("models are the tenant's agents", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("echo"));
});

test("a completion carries text and usage", async () => {
  const completion = await client.chat.completions.create({ model: "echo", messages: user("one two three") });
  assert.equal(completion.choices[0].message.content, "one two three");
  assert.equal(
    completion.usage.total_tokens, completion.usage.prompt_tokens + completion.usage.completion_tokens,
  );
});

test("a stream joins to the answer and ends with usage", async () => {
  const stream = await client.chat.completions.create({
    model: "echo", messages: user("word by word it comes"), stream: true, stream_options: { include_usage: true },
  });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "word by word it comes");
  assert.ok(usage.completion_tokens > 0);
});

test("the caller's tools are passed through, and their results come back", async () => {
  const messages = user('/call weather {"city": "Bonn"}');
  const first = await client.chat.completions.create({ model: "echo", messages, tools: [weather] });
  const [call] = first.choices[0].message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Bonn" });
  messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "sunny" });
  const second = await client.chat.completions.create({ model: "echo", messages, tools: [weather] });
  assert.match(second.choices[0].message.content, /sunny/);
});

test("structured output matches its schema", async () => {
  const schema = {
    type: "object", properties: { name: { type: "string" } }, required: ["name"], additionalProperties: false,
  };
  const completion = await client.chat.completions.create({
    model: "echo",
    messages: user('{"name": "Bonn"}'),
    response_format: { type: "json_schema", json_schema: { name: "city", strict: true, schema } },
  });
  assert.deepEqual(JSON.parse(completion.choices[0].message.content), { name: "Bonn" });
});

test("a response is followed on, and streams", async () => {
  const first = await client.responses.create({ model: "echo", input: "remember the milk" });
  assert.equal(first.output_text, "remember the milk");
  const stream = client.responses.stream({ model: "echo", input: "and now?", previous_response_id: first.id });
  const final = await stream.finalResponse();
  assert.equal(final.output_text, "and now?");
});

test("errors have OpenAI's classes", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: "nobody", messages: user("hi") }), OpenAI.NotFoundError,
  );
  const stranger = new OpenAI({ baseURL: client.baseURL, apiKey: "kg_wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  await assert.rejects(
    client.chat.completions.create({ model: "echo", messages: user("hi"), temprature: 1 }),
    OpenAI.UnprocessableEntityError,
  );
});
