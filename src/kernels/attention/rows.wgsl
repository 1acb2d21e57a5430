// Flash attention: PARTS neighbouring invocations own QUERIES queries, each a part of their channels,
// vector and result in registers, and walk over all keys. All read the same key at the same time,
// which workgroup memory serves as one read. Where there are two parts, their scores meet in the
// subgroup, without those in workgroup memory. Where the queries alone would leave a large GPU idle at the end (SPLIT), the
// third axis of workgroups has parts of the keys, whose results `combine.wgsl` weighs.
//
// Halves multiply as halves: scores in four sums of a part's channels / 4 products each, and values over
// the keys of a tile. All sums beyond, and the softmax, are in f32.

struct Params {
    queries: u32,
    keys: u32,
    // Channels of all heads together.
    channels: u32,
    // scale * log2(e), an f32.
    scale: f32,
    pictures: u32,
    // Keys of a part, a multiple of KEYS.
    part: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4<${FLOAT}>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<${FLOAT}>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<${FLOAT}>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<${OUTPUT}>>;
//# if SPLIT
// The logarithm, to base 2, of each query's sum of exponentials.
@group(0) @binding(4) var<storage, read_write> logs: array<f32>;
//# end
@group(0) @binding(${4 + SPLIT}) var<uniform> p: Params;

// By chunk, key of the chunk and part: an index that is no constant is compared with its bound at every read in a
// browser, and here that is the chunk's and the part's, once for all reads of a chunk.
alias Tile = array<array<array<array<vec4<${FLOAT}>, ${D4 / PARTS}>, ${PARTS}>, ${CHUNK}>, ${KEYS / CHUNK}>;
var<workgroup> tile_k: Tile;
var<workgroup> tile_v: Tile;
//# if PARTS > 1 && !SUBGROUPS
var<workgroup> scores: array<vec4<f32>, ${THREADS * QUERIES * CHUNK / 4}>;
//# end

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let stride = p.channels / 4u;
    let head = workgroup.y * ${D4}u;
    let part = local % ${PARTS}u;
    let own = part * ${D4 / PARTS}u;
    let slot = local / ${PARTS}u;
    let picture = workgroup.z % p.pictures;
    let first_key = picture * p.keys;
//# for i in 0..QUERIES
    let query_${i} = workgroup.x * ${QUERIES * THREADS / PARTS}u + ${i * THREADS / PARTS}u + slot;
    // A query beyond the last computes the last once more, and is not written.
    let at_${i} = (picture * p.queries + min(query_${i}, p.queries - 1u)) * stride + head + own;
//# for c in 0..D4 / PARTS
    let q_${i}_${c} = vec4<${FLOAT}>(vec4<f32>(q[at_${i} + ${c}u]) * p.scale);
    var o_${i}_${c} = vec4<f32>();
//# end
    var top_${i} = -1e30;
    var sum_${i} = 0.0;
//# end

//# if SPLIT
    let begin = workgroup.z / p.pictures * p.part;
    let last = min(p.keys, begin + p.part);
//# else
    let begin = 0u;
//# if CAUSAL
    let last = min(p.keys, (workgroup.x + 1u) * ${QUERIES * THREADS / PARTS}u);
//# else
    let last = p.keys;
//# end
//# end
    for (var tile = begin; tile < last; tile += ${KEYS}u) {
        // READS reads are under way at once. Keys beyond the last are the last once more, and weigh nothing.
        for (var first = local; first < ${KEYS * D4}u; first += ${READS * THREADS}u) {
//# for u in 0..READS
//# if KEYS * D4 % (READS * THREADS) == 0
            {
//# else
            if (first < ${KEYS * D4 - u * THREADS}u) {
//# end
                let i = first + ${u * THREADS}u;
                let origin = (first_key + min(tile + i / ${D4}u, p.keys - 1u)) * stride + head + i % ${D4}u;
                let at = vec4<u32>(i / ${CHUNK * D4}u, i / ${D4}u % ${CHUNK}u, i / ${D4 / PARTS}u % ${PARTS}u, i % ${D4 / PARTS}u);
                tile_k[at.x][at.y][at.z][at.w] = k[origin];
                tile_v[at.x][at.y][at.z][at.w] = v[origin];
            }
//# end
        }
        workgroupBarrier();
//# if HALF
//# for i in 0..QUERIES
//# for c in 0..D4 / PARTS
        var short_${i}_${c} = vec4<f16>();
//# end
//# end
//# end
        for (var chunk = 0u; chunk < ${KEYS}u; chunk += ${CHUNK}u) {
            let slice = chunk / ${CHUNK}u;
//# for i in 0..QUERIES
//# for t in 0..CHUNK
            var s_${i}_${t} = 0.0;
//# if HALF
            var four_${i}_${t} = vec4<f16>();
//# end
//# end
//# end
//# for c in 0..D4 / PARTS
//# for t in 0..CHUNK
            {
                let key = tile_k[slice][${t}][part][${c}];
//# for i in 0..QUERIES
//# if HALF
                four_${i}_${t} = fma(q_${i}_${c}, key, four_${i}_${t});
//# else
//# for e in 0..4
                s_${i}_${t} = fma(q_${i}_${c}[${e}], key[${e}], s_${i}_${t});
//# end
//# end
//# end
            }
//# end
//# end
//# if HALF
//# for i in 0..QUERIES
//# for t in 0..CHUNK
            s_${i}_${t} = dot(vec4<f32>(four_${i}_${t}), vec4<f32>(1.0));
//# end
//# end
//# end
//# if PARTS > 1 && SUBGROUPS
            // Their parts lie in neighbouring lanes.
//# for i in 0..QUERIES
//# for t in 0..CHUNK
            s_${i}_${t} += subgroupShuffleXor(s_${i}_${t}, 1u);
//# end
//# end
//# end
//# if PARTS > 1 && !SUBGROUPS
//# for i in 0..QUERIES
//# for t in 0..CHUNK / 4
            scores[${(i * CHUNK / 4 + t) * THREADS}u + local] = vec4<f32>(s_${i}_${t * 4}, s_${i}_${t * 4 + 1}, s_${i}_${t * 4 + 2}, s_${i}_${t * 4 + 3});
//# end
//# end
            workgroupBarrier();
//# for i in 0..QUERIES
//# for t in 0..CHUNK / 4
            {
                // In one order for all, so that all go on with the same numbers.
                var sum = vec4<f32>();
//# for other in 0..PARTS
                sum += scores[${(i * CHUNK / 4 + t) * THREADS + other}u + slot * ${PARTS}u];
//# end
//# for e in 0..4
                s_${i}_${t * 4 + e} = sum[${e}];
//# end
            }
//# end
//# end
            workgroupBarrier();
//# end
            if (tile + chunk + ${CHUNK}u > p.keys) {
//# for i in 0..QUERIES
//# for t in 0..CHUNK
                s_${i}_${t} = select(-1e30, s_${i}_${t}, tile + chunk + ${t}u < p.keys);
//# end
//# end
            }
//# for i in 0..QUERIES
//# if CAUSAL
//# for t in 0..CHUNK
            s_${i}_${t} = select(-1e30, s_${i}_${t}, tile + chunk + ${t}u <= query_${i});
//# end
//# end
            {
                var top = s_${i}_0;
//# for t in 1..CHUNK
                top = max(top, s_${i}_${t});
//# end
                if (top > top_${i}) {
                    let shrink = exp2(top_${i} - top);
                    top_${i} = top;
                    sum_${i} *= shrink;
//# for c in 0..D4 / PARTS
                    o_${i}_${c} *= shrink;
//# if HALF
                    short_${i}_${c} *= f16(shrink);
//# end
//# end
                }
//# for t in 0..CHUNK
                s_${i}_${t} = exp2(s_${i}_${t} - top_${i});
                sum_${i} += s_${i}_${t};
//# end
            }
//# end
//# for t in 0..CHUNK
//# for c in 0..D4 / PARTS
            {
                let value = tile_v[slice][${t}][part][${c}];
//# for i in 0..QUERIES
                ${RESULT}_${i}_${c} = fma(vec4<${FLOAT}>(${FLOAT}(s_${i}_${t})), value, ${RESULT}_${i}_${c});
//# end
            }
//# end
//# end
        }
//# if HALF
//# for i in 0..QUERIES
//# for c in 0..D4 / PARTS
        o_${i}_${c} += vec4<f32>(short_${i}_${c});
//# end
//# end
//# end
        workgroupBarrier();
    }

//# for i in 0..QUERIES
    if (query_${i} < p.queries) {
        let scale = 1.0 / sum_${i};
//# if SPLIT
        let result = at_${i} + workgroup.z / p.pictures * p.pictures * p.queries * stride;
        if (part == 0u) {
            logs[(workgroup.z * p.queries + query_${i}) * (stride / ${D4}u) + workgroup.y] = top_${i} + log2(sum_${i});
        }
//# else
        let result = at_${i};
//# end
//# for c in 0..D4 / PARTS
        output[result + ${c}u] = vec4<${OUTPUT}>(o_${i}_${c} * scale);
//# end
    }
//# end
}
