use burn::tensor::{DType, Tensor, activation};

/// The plain twin of the kernel, in `f32` whatever the activations. Stores the scores: `[B, heads, N, M]`.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    causal: bool,
) -> Tensor<3> {
    let [batch, tokens, channels] = q.dims();
    let scale = ((channels / heads) as f64).powf(-0.5);
    let split = |x: Tensor<3>| {
        let [b, n, c] = x.dims();
        x.reshape([b, n, heads, c / heads]).permute([0, 2, 1, 3]).cast(DType::F32)
    };
    let dtype = q.dtype();
    let mut scores = split(q).matmul(split(k).permute([0, 1, 3, 2])).mul_scalar(scale);
    if causal {
        let device = scores.device();
        let later = Tensor::<2>::ones([tokens, tokens], (&device, DType::F32)).triu(1);
        let mask = later.mul_scalar(f32::MIN).reshape([1, 1, tokens, tokens]);
        scores = scores.add(mask);
    }
    let weights = activation::softmax(scores, 3);
    let mixed = weights.matmul(split(v)).cast(dtype);
    mixed.permute([0, 2, 1, 3]).reshape([batch, tokens, channels])
}
