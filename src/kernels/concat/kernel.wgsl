struct Params {
    // Values of the output, and of a pixel of each input.
    count: u32,
    first: u32,
    second: u32,
}

@group(0) @binding(0) var<storage, read> a: array<${VALUE}>;
@group(0) @binding(1) var<storage, read> b: array<${VALUE}>;
@group(0) @binding(2) var<storage, read_write> output: array<${VALUE}>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    if (i >= p.count) {
        return;
    }
    let pixel = i / (p.first + p.second);
    let channel = i % (p.first + p.second);
    if (channel < p.first) {
        output[i] = a[pixel * p.first + channel];
    } else {
        output[i] = b[pixel * p.second + channel - p.first];
    }
}
