import { folder, launch, pkg, serve } from './harness.mjs';
const only = process.argv[2];
const server = await serve(`${folder}site`, { '/pkg': pkg });
const browser = await launch();
const page = await browser.newPage();
page.on('console', (m) => console.log(m.text()));
page.on('pageerror', (m) => console.log('ERR', String(m)));
await page.goto(`${server.url}`);
await page.evaluate(async () => { const m = await import('/pkg/instruct_pix2pix.js'); await m.default(); globalThis.m = m; });
const cdp = await page.context().newCDPSession(page);
await cdp.send('Profiler.enable'); await cdp.send('Profiler.setSamplingInterval', { interval: 500 }); await cdp.send('Profiler.start');
await page.evaluate((only) => globalThis.m.bench({ only }, (l) => console.log(l)).catch((e) => console.log('E', String(e))), only);
const { profile } = await cdp.send('Profiler.stop');
const self = new Map(); const byId = new Map(profile.nodes.map((n) => [n.id, n]));
const dt = profile.timeDeltas; profile.samples.forEach((id, i) => self.set(id, (self.get(id) ?? 0) + dt[i]));
const agg = new Map(); for (const [id, t] of self) { const n = byId.get(id).callFrame.functionName || '(anon)'; agg.set(n, (agg.get(n) ?? 0) + t); }
for (const [n, t] of [...agg].sort((a, b) => b[1] - a[1]).slice(0, 25)) console.log((t / 1000).toFixed(1).padStart(9), n.slice(0, 160));
// inclusive
const parent = new Map(); for (const n of profile.nodes) for (const c of n.children ?? []) parent.set(c, n.id);
const inc = new Map();
for (const [id, t] of self) { const seen = new Set(); for (let k = id; k; k = parent.get(k)) { const n = byId.get(k).callFrame.functionName; if (seen.has(n)) continue; seen.add(n); inc.set(n, (inc.get(n) ?? 0) + t); } }
console.log('--- inclusive'); for (const [n, t] of [...inc].sort((a, b) => b[1] - a[1]).slice(0, 45)) console.log((t / 1000).toFixed(1).padStart(9), n.slice(0, 160));
await browser.close(); server.close();
