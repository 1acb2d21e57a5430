// Sums of each group over a run of pixels, and after the last run's the value around which they are: a workgroup for
// each picture's group and run.

struct Params {
    channels: u32,
    pixels: u32,
    groups: u32,
    // Pixels of a run.
    run: u32,
    runs: u32,
}

@group(0) @binding(0) var<storage, read> input: array<${FLOAT}>;
@group(0) @binding(1) var<storage, read_write> output: array<vec2<f32>>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
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
    let width = p.channels / p.groups;
    let base = workgroup.z * p.pixels * p.channels + workgroup.y * width;
    // Sums of squares lose their digits where the mean is large: sum around a value of the group.
    let origin = f32(input[base]);
    let first = workgroup.x * p.run;
    let count = (min(first + p.run, p.pixels) - first) * width;
    var sums = vec2<f32>();
    for (var i = local; i < count; i += ${THREADS}u) {
        let x = f32(input[base + (first + i / width) * p.channels + i % width]) - origin;
        sums += vec2<f32>(x, x * x);
    }
    sums = total(sums, local, lane, lanes);
    if (local == 0u) {
        let at = (workgroup.z * p.groups + workgroup.y) * (p.runs + 1u);
        output[at + workgroup.x] = sums;
        if (workgroup.x == 0u) {
            output[at + p.runs] = vec2<f32>(origin, 0.0);
        }
    }
}
