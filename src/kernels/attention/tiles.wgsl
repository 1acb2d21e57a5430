// Flash attention for wide heads: a workgroup owns ROWS queries and takes KEYS keys at a time. Scores
// are a matrix product through workgroup memory in slices DEPTH deep; they become weights there; the
// result grows in registers, ROWS / TY rows by D / TX channels for each invocation.

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

// By what an invocation computes, invocation and depth, of which one pads: an index that is no constant is compared with its
// bound at every read in a browser, and so that is the depth's, once for all reads at it, and the invocation's, before the loop.
var<workgroup> tile_q: array<array<array<vec4<f32>, ${DEPTH / 4 + 1}>, ${TY}>, ${ROWS / TY}>;
var<workgroup> tile_k: array<array<array<vec4<f32>, ${DEPTH / 4 + 1}>, ${TX}>, ${KEYS / TX}>;
// Scores, then weights.
var<workgroup> weights: array<array<array<f32, ${KEYS}>, ${TY}>, ${ROWS / TY}>;
// For each row and each of the TX invocations that share its reduction.
var<workgroup> partial: array<f32, ${ROWS * TX}>;

@compute @workgroup_size(${TX * TY})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let stride = p.channels / 4u;
    let head = workgroup.y * ${D4}u;
    let first_row = workgroup.x * ${ROWS}u;
    let first_query = workgroup.z * p.queries;
    let first_key = workgroup.z * p.keys;
    let tx = local % ${TX}u;
    let ty = local / ${TX}u;
//# for i in 0..ROWS / TY
    var top_${i} = -1e30;
    var sum_${i} = 0.0;
//# for c in 0..(D4 + TX - 1) / TX
    var o_${i}_${c} = vec4<f32>();
//# end
//# end

//# if CAUSAL
    let last = min(p.keys, first_row + ${ROWS}u);
//# else
    let last = p.keys;
//# end
    for (var tile = 0u; tile < last; tile += ${KEYS}u) {
//# for i in 0..ROWS / TY
//# for j in 0..KEYS / TX
        var s_${i}_${j} = 0.0;
//# end
//# end
        for (var depth = 0u; depth < ${D4}u; depth += ${DEPTH / 4}u) {
            // Rows and keys beyond the last are the last once more; channels beyond the last are zeros.
//# for u in 0..(ROWS * DEPTH / 4 + TX * TY - 1) / TX / TY
//# if (u + 1) * TX * TY > ROWS * DEPTH / 4
            if (local < ${ROWS * DEPTH / 4 - u * TX * TY}u) {
//# else
            {
//# end
                let i = local + ${u * TX * TY}u;
                let c = depth + i % ${DEPTH / 4}u;
                let origin = (first_query + min(first_row + i / ${DEPTH / 4}u, p.queries - 1u)) * stride + head + min(c, ${D4 - 1}u);
                let value = vec4<f32>(q[origin]) * p.scale;
                tile_q[i / ${DEPTH / 4 * TY}u][i / ${DEPTH / 4}u % ${TY}u][i % ${DEPTH / 4}u] = select(vec4<f32>(), value, c < ${D4}u);
            }
//# end
//# for u in 0..(KEYS * DEPTH / 4 + TX * TY - 1) / TX / TY
//# if (u + 1) * TX * TY > KEYS * DEPTH / 4
            if (local < ${KEYS * DEPTH / 4 - u * TX * TY}u) {
//# else
            {
//# end
                let i = local + ${u * TX * TY}u;
                let c = depth + i % ${DEPTH / 4}u;
                let origin = (first_key + min(tile + i / ${DEPTH / 4}u, p.keys - 1u)) * stride + head + min(c, ${D4 - 1}u);
                let value = vec4<f32>(k[origin]);
                tile_k[i / ${DEPTH / 4 * TX}u][i / ${DEPTH / 4}u % ${TX}u][i % ${DEPTH / 4}u] = select(vec4<f32>(), value, c < ${D4}u);
            }
//# end
            workgroupBarrier();
//# for c in 0..DEPTH / 4
            {
//# for i in 0..ROWS / TY
                let q_${i} = tile_q[${i}][ty][${c}];
//# end
//# for j in 0..KEYS / TX
                let k_${j} = tile_k[${j}][tx][${c}];
//# for e in 0..4
//# for i in 0..ROWS / TY
                s_${i}_${j} = fma(q_${i}[${e}], k_${j}[${e}], s_${i}_${j});
//# end
//# end
//# end
            }
//# end
            workgroupBarrier();
        }

//# for i in 0..ROWS / TY
        {
            let row = ty + ${i * TY}u;
            var top = -1e30;
//# for j in 0..KEYS / TX
            {
                let key = tile + tx + ${j * TX}u;
//# if CAUSAL
                s_${i}_${j} = select(-1e30, s_${i}_${j}, key < p.keys && key <= first_row + row);
//# else
                s_${i}_${j} = select(-1e30, s_${i}_${j}, key < p.keys);
//# end
                top = max(top, s_${i}_${j});
            }
//# end
            partial[row * ${TX}u + tx] = top;
        }
//# end
        workgroupBarrier();
//# for i in 0..ROWS / TY
        {
            let row = ty + ${i * TY}u;
            var top = top_${i};
            for (var t = 0u; t < ${TX}u; t++) {
                top = max(top, partial[row * ${TX}u + t]);
            }
            let shrink = exp2(top_${i} - top);
            top_${i} = top;
            sum_${i} *= shrink;
//# for c in 0..(D4 + TX - 1) / TX
            o_${i}_${c} *= shrink;
//# end
//# for j in 0..KEYS / TX
            {
                let weight = exp2(s_${i}_${j} - top);
                // Each invocation sums its own weights; they meet at the end.
                sum_${i} += weight;
                weights[${i}][ty][tx + ${j * TX}u] = weight;
            }
//# end
        }
//# end
        workgroupBarrier();
        // In pairs: keys from `last` on weigh nothing.
        for (var pair = 0u; pair < min(${KEYS}u, last - tile); pair += 2u) {
//# for two in 0..2
            {
                let key = pair + ${two}u;
                let at = (first_key + min(tile + key, p.keys - 1u)) * stride + head;
//# for c in 0..(D4 + TX - 1) / TX
//# if (c + 1) * TX <= D4
                let v_${c} = vec4<f32>(v[at + tx + ${c * TX}u]);
//# else
                let v_${c} = vec4<f32>(v[at + min(tx + ${c * TX}u, ${D4 - 1}u)]);
//# end
//# end
//# for i in 0..ROWS / TY
                {
                    let weight = weights[${i}][ty][key];
//# for c in 0..(D4 + TX - 1) / TX
                    o_${i}_${c} = fma(vec4<f32>(weight), v_${c}, o_${i}_${c});
//# end
                }
//# end
            }
//# end
        }
        workgroupBarrier();
    }

//# for i in 0..ROWS / TY
    partial[(ty + ${i * TY}u) * ${TX}u + tx] = sum_${i};
//# end
    workgroupBarrier();
//# for i in 0..ROWS / TY
    {
        let row = ty + ${i * TY}u;
        var sum = 0.0;
        for (var t = 0u; t < ${TX}u; t++) {
            sum += partial[row * ${TX}u + t];
        }
        if (first_row + row < p.queries) {
            let at = (first_query + first_row + row) * stride + head;
//# for c in 0..(D4 + TX - 1) / TX
            if (tx + ${c * TX}u < ${D4}u) {
                output[at + tx + ${c * TX}u] = vec4<${FLOAT}>(o_${i}_${c} / sum);
            }
//# end
        }
    }
//# end
}
