struct Params {
    words: u32,
}

@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<vec2<${FLOAT}>>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    if (i < p.words) {
        output[i] = vec2<${FLOAT}>(unpack2x16float(words[i]));
    }
}
