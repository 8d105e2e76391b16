// What `test_openai.py` runs: generate, edit, stream, and an error, by OpenAI's own client.
import fs from "node:fs";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ apiKey: "any", baseURL: process.argv[2], maxRetries: 0 });
const own = {
  model: "tiny",
  prompt: "a cat",
  steps: 8,
  num_inference_steps: 8,
  safety_checker: "no",
};
const file = (name) => toFile(fs.createReadStream(name), name, { type: "image/png" });

const generated = await client.images.generate({ ...own, size: "64x64" });
const edited = await client.images.edit({
  ...own,
  image: await file("init.png"),
  mask: await file("mask.png"),
});
const streamed = [];
const stream = await client.images.generate({ ...own, stream: true, partial_images: 1 });
for await (const event of stream) streamed.push(event.type);
const error = await client.images
  .generate({ ...own, size: "7x7" })
  .catch((refused) => [refused.status, refused.param, refused.code]);
console.log(
  JSON.stringify({
    generated: generated.data[0].b64_json,
    edited: edited.data[0].b64_json,
    streamed,
    error,
  }),
);
