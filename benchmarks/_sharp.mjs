// sharp, in a process of its own: the same protocol as _engines.py.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const sharp = createRequire(process.argv[2] + "/")("sharp");
sharp.concurrency(1);
sharp.cache(false);

for await (const line of createInterface({ input: process.stdin })) {
  const [path, size] = line.split("\t");
  const data = readFileSync(path);
  const before = process.cpuUsage();
  createHash("sha256").update(data).digest("hex");
  const thumbnail = await sharp(data)
    .autoOrient()
    .resize({ width: Number(size), height: Number(size), fit: "inside", withoutEnlargement: true })
    .flatten({ background: "#ffffff" })
    .jpeg({ quality: 85, optimiseCoding: Number(size) <= 400 })
    .toBuffer();
  const spent = process.cpuUsage(before);
  console.log(JSON.stringify({ ms: (spent.user + spent.system) / 1000, thumbnail: thumbnail.toString("base64") }));
}
