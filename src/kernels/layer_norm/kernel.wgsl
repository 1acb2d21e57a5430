// A workgroup for each row.

struct Params {
    rows: u32,
    // Values, or vectors of values, of a row.
    length: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> input: array<${VALUE}>;
@group(0) @binding(1) var<storage, read> weight: array<${WIDE}>;
@group(0) @binding(2) var<storage, read> bias: array<${WIDE}>;
@group(0) @binding(3) var<storage, read_write> output: array<${VALUE}>;
@group(0) @binding(4) var<uniform> p: Params;

fn across(value: ${WIDE}) -> f32 {
//# if LANES == 4
    return value.x + value.y + value.z + value.w;
//# else
    return value;
//# end
}

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
//# if SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
//# end
) {
//# if !SUBGROUPS
    let lane = 0u;
    let lanes = 1u;
//# end
    let row = workgroup.y * workgroups.x + workgroup.x;
    if (row >= p.rows) {
        return;
    }
    let base = row * p.length;
    var sum = ${WIDE}();
    for (var i = local; i < p.length; i += ${THREADS}u) {
        sum += ${WIDE}(input[base + i]);
    }
    let values = f32(p.length * ${LANES}u);
    let mean = total(across(sum), local, lane, lanes) / values;
    sum = ${WIDE}();
    for (var i = local; i < p.length; i += ${THREADS}u) {
        let centred = ${WIDE}(input[base + i]) - mean;
        sum += centred * centred;
    }
    let scale = inverseSqrt(total(across(sum), local, lane, lanes) / values + p.eps);
    for (var i = local; i < p.length; i += ${THREADS}u) {
        let centred = ${WIDE}(input[base + i]) - mean;
        output[base + i] = ${VALUE}(centred * scale * weight[i] + bias[i]);
    }
}
