struct Params {
    count: u32,
//# for i in 0..TERMS
    coefficient_${i}: f32,
//# end
}

//# for i in 0..TERMS
@group(0) @binding(${i}) var<storage, read> term_${i}: array<${FLOAT}>;
//# end
@group(0) @binding(${TERMS}) var<storage, read_write> output: array<${FLOAT}>;
@group(0) @binding(${TERMS + 1}) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    if (i < p.count) {
        var sum = 0.0;
//# for i in 0..TERMS
        sum += p.coefficient_${i} * f32(term_${i}[i]);
//# end
        output[i] = ${FLOAT}(sum);
    }
}
