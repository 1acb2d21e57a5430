// Flash attention for narrow heads: an invocation owns QUERIES queries whole, vector and result in
// registers, and walks over all keys. Every invocation reads the same key at the same time, which
// workgroup memory serves as one read.

struct Params {
    queries: u32,
    keys: u32,
    // Channels of all heads together.
    channels: u32,
    // scale * log2(e), an f32.
    scale: f32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4<${FLOAT}>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<${FLOAT}>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<${FLOAT}>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<${FLOAT}>>;
@group(0) @binding(4) var<uniform> p: Params;

var<workgroup> tile_k: array<vec4<f32>, ${KEYS * D4}>;
var<workgroup> tile_v: array<vec4<f32>, ${KEYS * D4}>;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let stride = p.channels / 4u;
    let head = workgroup.y * ${D4}u;
    let first_key = workgroup.z * p.keys;
//# for i in 0..QUERIES
    let query_${i} = workgroup.x * ${QUERIES * THREADS}u + ${i * THREADS}u + local;
    // A query beyond the last computes the last once more, and is not written.
    let at_${i} = (workgroup.z * p.queries + min(query_${i}, p.queries - 1u)) * stride + head;
//# for c in 0..D4
    let q_${i}_${c} = vec4<f32>(q[at_${i} + ${c}u]) * p.scale;
    var o_${i}_${c} = vec4<f32>();
//# end
    var top_${i} = -1e30;
    var sum_${i} = 0.0;
//# end

//# if CAUSAL
    let last = min(p.keys, workgroup.x * ${QUERIES * THREADS}u + ${QUERIES * THREADS}u);
//# else
    let last = p.keys;
//# end
    for (var tile = 0u; tile < last; tile += ${KEYS}u) {
        for (var i = local; i < ${KEYS * D4}u; i += ${THREADS}u) {
            let key = tile + i / ${D4}u;
            var key_value = vec4<f32>();
            var value = vec4<f32>();
            if (key < p.keys) {
                let at = (first_key + key) * stride + head + i % ${D4}u;
                key_value = vec4<f32>(k[at]);
                value = vec4<f32>(v[at]);
            }
            tile_k[i] = key_value;
            tile_v[i] = value;
        }
        workgroupBarrier();
        for (var chunk = 0u; chunk < ${KEYS}u; chunk += ${CHUNK}u) {
            let base = chunk * ${D4}u;
//# for i in 0..QUERIES
//# for t in 0..CHUNK
            var s_${i}_${t} = 0.0;
//# end
//# end
//# for c in 0..D4
//# for t in 0..CHUNK
            {
                let key = tile_k[base + ${t * D4 + c}u];
//# for e in 0..4
//# for i in 0..QUERIES
                s_${i}_${t} = fma(q_${i}_${c}[${e}], key[${e}], s_${i}_${t});
//# end
//# end
            }
//# end
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
//# for c in 0..D4
                    o_${i}_${c} *= shrink;
//# end
                }
//# for t in 0..CHUNK
                s_${i}_${t} = exp2(s_${i}_${t} - top_${i});
                sum_${i} += s_${i}_${t};
//# end
            }
//# end
//# for t in 0..CHUNK
//# for c in 0..D4
            {
                let value = tile_v[base + ${t * D4 + c}u];
//# for i in 0..QUERIES
                o_${i}_${c} = fma(vec4<f32>(s_${i}_${t}), value, o_${i}_${c});
//# end
            }
//# end
//# end
        }
        workgroupBarrier();
    }

//# for i in 0..QUERIES
    if (query_${i} < p.queries) {
        let scale = 1.0 / sum_${i};
//# for c in 0..D4
        output[at_${i} + ${c}u] = vec4<${FLOAT}>(o_${i}_${c} * scale);
//# end
    }
//# end
}
