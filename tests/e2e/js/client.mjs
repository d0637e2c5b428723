// Uses the openai client from npm against the base URL given and prints what it saw as JSON; the test judges.

import OpenAI, { toFile } from "openai";

const [baseURL, hastyURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "sk-client", maxRetries: 0 });
const hasty = new OpenAI({ baseURL: hastyURL, apiKey: "sk-client", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const facts = {};

async function failure(call) {
  try {
    await call();
    return null;
  } catch (error) {
    const { status, code, param, type, message } = error;
    return { kind: error.constructor.name, status, code, param, type, message, retryAfter: error.headers?.get("retry-after") };
  }
}

function chat(fields, headers) {
  return client.chat.completions.create({ model: "demo", messages, ...fields }, { headers });
}

async function text(stream) {
  let found = "";
  for await (const chunk of stream) found += chunk.choices[0]?.delta?.content ?? "";
  return found;
}

const whole = await chat();
facts.chat = { text: whole.choices[0].message.content, finish: whole.choices[0].finish_reason, tokens: whole.usage.total_tokens };
facts.stream = await text(await chat({ stream: true }));

const called = (await chat({ tools })).choices[0].message;
facts.tool = called.tool_calls[0].function;
const result = { role: "tool", tool_call_id: called.tool_calls[0].id, content: "{}" };
facts.toolResult = (await chat({ tools, messages: [...messages, called, result] })).choices[0].message.content;
const streamed = await client.chat.completions.stream({ model: "demo", messages, tools }).finalChatCompletion();
facts.streamedTool = streamed.choices[0].message.tool_calls[0].function.arguments;

const embed = (fields) => client.embeddings.create({ model: "demo-embed", input: "a", dimensions: 8, ...fields });
facts.embeddings = {
  usual: (await embed({})).data[0].embedding,
  float: (await embed({ encoding_format: "float" })).data[0].embedding,
};

facts.response = (await client.responses.create({ model: "demo", input: "Hello" })).output_text;
facts.responseEvents = [];
for await (const event of await client.responses.create({ model: "demo", input: "Hello", stream: true })) {
  facts.responseEvents.push(event.type);
}

facts.completion = (await client.completions.create({ model: "demo", prompt: "Hello" })).choices[0].text;
facts.models = (await client.models.list()).data.map((model) => model.id);
facts.model = (await client.models.retrieve("renamed")).id;

const content = Buffer.from([0, 255, 13, 10, ...Array(60_000).fill(7)]);
const file = await client.files.create({ file: await toFile(content, "a.bin"), purpose: "user_data" });
const back = Buffer.from(await (await client.files.content(file.id)).arrayBuffer());
facts.file = {
  bytes: file.bytes,
  same: back.equals(content),
  listed: (await client.files.list()).data.some((found) => found.id === file.id),
  deleted: (await client.files.delete(file.id)).deleted,
};

const speech = await client.audio.speech.create({ model: "demo", input: "x", voice: "alloy" });
facts.speech = (await speech.arrayBuffer()).byteLength;
const audio = await toFile(Buffer.from("RIFF1234"), "a.wav");
facts.transcription = (await client.audio.transcriptions.create({ model: "demo", file: audio })).text;

facts.errors = {
  unknown: await failure(() => chat({ model: "demo-larg" })),
  mistyped: await failure(() => chat({ model: 7 })),
  unreachable: await failure(() => chat({ model: "lost" })),
  overloaded: await failure(() => chat({}, { "X-Demo-Fault": "status=503" })),
  limited: await failure(() => chat({}, { "X-Demo-Fault": "status=429;retry-after=17" })),
  silent: await failure(() =>
    hasty.chat.completions.create({ model: "demo", messages }, { headers: { "X-Demo-Fault": "never" } }),
  ),
  cut: await failure(async () => text(await chat({ stream: true }, { "X-Demo-Fault": "cut" }))),
};

const leaving = await chat({ stream: true }, { "X-Demo-Tokens": "100000", "X-Demo-Rate": "1000" });
for await (const chunk of leaving) {
  facts.firstOfMany = chunk.object;
  break;
}

const ask = (number) => ({ messages: [{ role: "user", content: `Please repeat the number ${number} to me in words` }] });
const numbers = Array.from({ length: 100 }, (_, index) => 1000 + index);
const wholes = await Promise.all(numbers.map(async (n) => (await chat(ask(n))).choices[0].message.content.includes(` ${n} `)));
const streams = await Promise.all(numbers.map(async (n) => (await text(await chat({ ...ask(n), stream: true }))).includes(` ${n} `)));
facts.hundred = { whole: wholes.filter(Boolean).length, streamed: streams.filter(Boolean).length };

console.log(JSON.stringify(facts));
