
// The sum over the invocations of a workgroup, for all of them.

var<workgroup> partial: array<${TOTAL}, ${THREADS}>;

//# if SUBGROUPS
// Where a workgroup is a line, its subgroups are its pieces, one after the other.
fn total(value: ${TOTAL}, local: u32, lane: u32, lanes: u32) -> ${TOTAL} {
    let sum = subgroupAdd(value);
    if (lane == 0u) {
        partial[local / lanes] = sum;
    }
    workgroupBarrier();
    var all = partial[0];
    for (var i = 1u; i * lanes < ${THREADS}u; i++) {
        all += partial[i];
    }
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
