// The learned tracker in JavaScript: onnxruntime-node and the file of `grutrack export`, nothing else.
//
//     grutrack export output=tracker.onnx
//     npm install onnxruntime-node
//     node tracker.mjs tracker.onnx MOT17-02/det/det.txt tracks.txt 30
//
// tracks every frame of a MOTChallenge detection file, of 30 frames per second, and writes a MOTChallenge result file.
// `Tracker` is the same with onnxruntime-web.

import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

// As the file's metadata says, which onnxruntime does not read in JavaScript: the first columns of a track, and
// `existence`, which is { minSilent: 1, hysteresis: 0 } in files of weights without existence.
const BOX = 0, SECONDS = 9, CONFIRMED = 11, LOG_ODDS = 12, CLASS_LOGITS = 317;
const EXISTENCE = { minSilent: 0.35, hysteresis: 0.5 };

class Tracker {
  // One video: `await tracker.update(boxes, scores, elapsed)` for each frame in order. One class of objects.
  constructor(session, { minScore = 0.1, minHits = 2, maxAge = 2, minNewTrack = 0.5, existence = EXISTENCE } = {}) {
    Object.assign(this, { session, minScore, minHits, maxAge, hysteresis: existence.hysteresis });
    this.minStart = Math.min(minNewTrack, existence.minSilent); // probability from which a track starts, silent
    this.minLogOdds = Math.log(Math.max(minNewTrack, 1e-6) / Math.max(1 - minNewTrack, 1e-6)); // to be reported
    this.level = new ort.Tensor("float32", new Float32Array(3), [3]); // of the scores so far
    this.tracks = []; // { row: Float32Array, id }, id 0 until the track is reported
    this.nextId = 1;
    this.isFirst = true;
  }

  // boxes: [[x1, y1, x2, y2], ...] in pixels. elapsed: seconds since the frame before. Resolves to [{ id, box }, ...].
  async update(boxes, scores, elapsed) {
    const used = [...scores.keys()].filter((k) => scores[k] >= this.minScore);
    const width = CLASS_LOGITS + 1;
    const floats = (values, ...dims) => new ort.Tensor("float32", Float32Array.from(values), dims);
    const rows = new Float32Array(this.tracks.length * width);
    this.tracks.forEach(({ row }, k) => rows.set(row, k * width));
    const result = await this.session.run({
      tracks: new ort.Tensor("float32", rows, [this.tracks.length, width]),
      elapsed: floats([this.isFirst ? 0 : elapsed], 1),
      affine: floats([1, 0, 0, 0, 1, 0], 2, 3), // a camera that stands still
      boxes: floats(used.flatMap((k) => boxes[k]), used.length, 4),
      scores: floats(used.map((k) => scores[k]), used.length),
      labels: new ort.Tensor("int64", new BigInt64Array(used.length), [used.length]),
      min_hits: floats([this.isFirst ? 1 : this.minHits], 1),
      level: this.level,
    });
    this.level = result.next_level;
    const rowOf = (name, k) => result[name].data.slice(k * width, (k + 1) * width);
    const pairs = Array.from(result.affinity.data, (gain, k) => {
      return { track: Number(result.pairs.data[2 * k]), detection: Number(result.pairs.data[2 * k + 1]), gain, k };
    });
    const matched = new Map(), taken = new Set();
    for (const pair of assign(pairs)) {
      matched.set(pair.track, pair.k);
      taken.add(pair.detection);
    }
    const isAlive = ({ row }) => row[SECONDS] === 0 || (row[CONFIRMED] > 0 && row[SECONDS] <= this.maxAge);
    this.tracks = this.tracks
      .map(({ id }, k) => ({ id, row: matched.has(k) ? rowOf("updated", matched.get(k)) : rowOf("predicted", k) }))
      .filter(isAlive);
    result.new_track.data.forEach((probability, k) => {
      if (probability >= this.minStart && !taken.has(k)) this.tracks.push({ id: 0, row: rowOf("initiated", k) });
    });
    const real = this.tracks.filter(({ id, row }) => {
      const margin = id > 0 || this.isFirst ? this.hysteresis : -this.hysteresis; // those reported before need less
      return row[CONFIRMED] > 0 && row[LOG_ODDS] + margin >= this.minLogOdds;
    });
    for (const track of real) if (track.id === 0) track.id = this.nextId++;
    this.isFirst = false;
    const reported = real.filter(({ row }) => row[SECONDS] === 0);
    return reported.map(({ id, row }) => ({ id, box: Array.from(row.slice(BOX, BOX + 4)) }));
  }
}

// The pairs of the largest total gain, each track and each detection at most once: the Hungarian method, by shortest
// augmenting paths. A track may also stay alone, in a column of its own without a cost.
function assign(pairs) {
  const tracks = [...new Set(pairs.map((pair) => pair.track))];
  const detections = [...new Set(pairs.map((pair) => pair.detection))];
  const n = tracks.length, m = detections.length + n;
  const table = tracks.map(() => new Array(m).fill(null));
  for (const pair of pairs) table[tracks.indexOf(pair.track)][detections.indexOf(pair.detection)] = pair;
  const cost = (i, j) => (table[i][j] ? -table[i][j].gain : j < detections.length ? 1e6 : 0);
  const u = new Array(n).fill(0), v = new Array(m + 1).fill(0), rowOf = new Array(m + 1).fill(-1);
  for (let i = 0; i < n; i++) {
    const distance = new Array(m).fill(Infinity), from = new Array(m).fill(m), done = new Array(m + 1).fill(false);
    let column = m; // a start outside the table
    rowOf[m] = i;
    do {
      done[column] = true;
      const row = rowOf[column];
      let nearest = -1;
      for (let j = 0; j < m; j++) {
        if (done[j]) continue;
        const reduced = cost(row, j) - u[row] - v[j];
        if (reduced < distance[j]) [distance[j], from[j]] = [reduced, column];
        if (nearest < 0 || distance[j] < distance[nearest]) nearest = j;
      }
      const step = distance[nearest];
      for (let j = 0; j <= m; j++) {
        if (done[j]) [u[rowOf[j]], v[j]] = [u[rowOf[j]] + step, v[j] - step];
        else if (j < m) distance[j] -= step;
      }
      column = nearest;
    } while (rowOf[column] >= 0);
    for (; column !== m; column = from[column]) rowOf[column] = rowOf[from[column]];
  }
  return detections.flatMap((_, j) => (rowOf[j] >= 0 && table[rowOf[j]][j] ? [table[rowOf[j]][j]] : []));
}

const [model, detectionFile, resultFile, frameRate = "30"] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1, logSeverityLevel: 3 });
const tracker = new Tracker(session), frames = [], lines = [];
for (const line of readFileSync(detectionFile, "utf8").trim().split("\n")) {
  const [frame, , left, top, width, height, score] = line.split(",").map(Number); // frames and pixels from 1
  (frames[frame] ??= []).push({ score, box: [left - 1, top - 1, left - 1 + width, top - 1 + height] });
}
for (let frame = 1; frame < frames.length; frame++) {
  const found = frames[frame] ?? [];
  const tracks = await tracker.update(found.map((d) => d.box), found.map((d) => d.score), 1 / Number(frameRate));
  for (const { id, box: [x1, y1, x2, y2] } of tracks) {
    lines.push([frame, id, ...[x1 + 1, y1 + 1, x2 - x1, y2 - y1].map((x) => x.toFixed(2)), "1,-1,-1,-1\n"].join(","));
  }
}
writeFileSync(resultFile, lines.join(""));
