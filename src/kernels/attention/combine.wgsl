// Weighs what came of parts of the keys by their sums of exponentials. An invocation has four channels of a query.

struct Params {
    // Queries of all pictures.
    rows: u32,
    // Fours of all heads together.
    stride: u32,
    parts: u32,
}

@group(0) @binding(0) var<storage, read> partial: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> logs: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<${FLOAT}>>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    let count = p.rows * p.stride;
    if (i >= count) {
        return;
    }
    let heads = p.stride / ${D4}u;
    let first = i / p.stride * heads + i % p.stride / ${D4}u;
    var top = -1e30;
    for (var part = 0u; part < p.parts; part++) {
        top = max(top, logs[part * p.rows * heads + first]);
    }
    var sum = 0.0;
    var value = vec4<f32>();
    for (var part = 0u; part < p.parts; part++) {
        let weight = exp2(logs[part * p.rows * heads + first] - top);
        sum += weight;
        value += weight * partial[part * count + i];
    }
    output[i] = vec4<${FLOAT}>(value / sum);
}
