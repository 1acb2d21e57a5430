
// The sum over the invocations of a workgroup, for all of them.

var<workgroup> partial: array<${TOTAL}, ${THREADS}>;

//# if SUBGROUPS
// Subgroup by subgroup, whichever invocations are in which.
fn total(value: ${TOTAL}, local: u32, lane: u32, lanes: u32) -> ${TOTAL} {
    let sum = subgroupAdd(value);
    partial[local] = select(${TOTAL}(), sum, local == subgroupMin(local));
    workgroupBarrier();
    var mine = ${TOTAL}();
    for (var i = lane; i < ${THREADS}u; i += lanes) {
        mine += partial[i];
    }
    let all = subgroupAdd(mine);
    workgroupBarrier();
    return all;
}
//# else
fn total(value: ${TOTAL}, local: u32, lane: u32, lanes: u32) -> ${TOTAL} {
    partial[local] = value;
    workgroupBarrier();
    for (var reach = ${THREADS / 2}u; reach > 0u; reach /= 2u) {
        if (local < reach) {
            partial[local] += partial[local + reach];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}
//# end
