//! What a call adds to the kernel: less than 5 us. The example `overhead` has the times.

use super::*;
use layernorm::{Params, Rows, RowsMut, Run};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The best of many, because whatever else the machine does only adds.
fn best(mut call: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..2000 {
        let start = Instant::now();
        call()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

#[test]
fn is_less_than_5_us() -> Result<()> {
    let x = variable(&[4, 64], 1, DType::F32)?;
    let [weight, bias] = [variable(&[64], 2, DType::F32)?, variable(&[64], 3, DType::F32)?];
    let slice = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let (x_slice, weight_slice, bias_slice) = (slice(&x)?, slice(&weight)?, slice(&bias)?);
    let params = Params { weight: Some(&weight_slice), bias: Some(&bias_slice), eps: EPS };
    let mut y = vec![0f32; 4 * 64];
    let kernel = best(|| {
        let mut run = || -> std::result::Result<(), layernorm::Error> {
            let (x, y) = (Rows::new(&x_slice, 64)?, RowsMut::new(&mut y, 64)?);
            layernorm::layer_norm(black_box(x), params, y, None, Run::default())
        };
        run().map_err(candle_core::Error::wrap)
    })?;
    let norm = layernorm_candle::LayerNorm::new(weight.as_tensor().clone(), bias.as_tensor().clone(), EPS);
    let call = best(|| candle_core::Module::forward(&norm, black_box(&x)).map(|y| drop(black_box(y))))?;
    assert!(call <= kernel + Duration::from_micros(5), "{call:?} where the kernel takes {kernel:?}");
    Ok(())
}
