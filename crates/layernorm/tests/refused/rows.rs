//! Norms of rows, and what is done to single numbers.

use crate::call::{Call, Entry, SENTINEL, entry, params, rows, rows_mut, stats, stats_mut, sums};
use layernorm::{
    Gradients, HeadNorm, ParamGradients, QkParams, RmsParams, RowsMut, Scale, l2_norm, l2_norm_backward,
    l2_norm_backward_in_place, l2_norm_in_place, layer_norm, layer_norm_backward,
    layer_norm_backward_in_place, layer_norm_in_place, layer_norm_quantized, narrow, qk_norm,
    qk_norm_backward, qk_norm_backward_in_place, qk_norm_in_place, quantize, rms_norm, rms_norm_backward,
    rms_norm_backward_in_place, rms_norm_in_place, rms_norm_quantized, scale_norm, scale_norm_backward,
    scale_norm_backward_in_place, scale_norm_in_place, silu, silu_backward, silu_backward_in_place,
    silu_in_place, widen,
};

fn of_rms<'a>(weight: &'a [f32], bias: &'a [f32], eps: f64, partial: usize) -> RmsParams<'a, f32> {
    RmsParams { partial: Some(partial), ..params(weight, bias, eps).into() }
}

fn of_heads<'a>(weight: &'a [f32], bias: &'a [f32], eps: f64, heads: usize) -> QkParams<'a, f32> {
    QkParams { norm: HeadNorm::Layer, heads, weight: Some(weight), bias: Some(bias), eps }
}

/// Codes that no wrong call may touch.
fn quantised(
    of: &mut Call,
    call: fn(&Call, RowsMut<'_, i8>, Scale<'_>) -> Result<(), layernorm::Error>,
) -> Result<(), layernorm::Error> {
    let (mut codes, mut scales) = (vec![99i8; of.y.len()], std::mem::take(&mut of.scales));
    let result = call(of, RowsMut::new(&mut codes, 4)?, Scale::OfRows(&mut scales));
    of.scales = scales;
    assert!(result.is_ok() || codes.iter().all(|code| *code == 99), "codes were written");
    result
}

fn gradients<'a>(dx: &'a mut [f32], params: Option<ParamGradients<'a, f32>>) -> Gradients<'a, f32> {
    Gradients { dx: Some(rows_mut(dx)), params }
}

pub(crate) const TABLE: &[Entry] = &[
    entry!(layer_norm, ["x" "y" "m" "c" "rstd" "weight" "bias"], + eps, |of| {
        let saved = stats_mut(&mut of.m, &mut of.c, &mut of.rstd);
        layer_norm(rows(&of.x), params(&of.weight, &of.bias, of.eps), rows_mut(&mut of.y), Some(saved), of.run)
    }),
    entry!(layer_norm_in_place, ["x" "m" "c" "rstd" "weight" "bias"], + eps, |of| {
        let saved = stats_mut(&mut of.m, &mut of.c, &mut of.rstd);
        layer_norm_in_place(rows_mut(&mut of.x), params(&of.weight, &of.bias, of.eps), Some(saved), of.run)
    }),
    entry!(
        layer_norm_backward,
        ["x" "dy" "dx" "m" "c" "rstd" "weight" "dweight" "dbias"],
        numbers [First],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let params = params(&of.weight, &of.weight, of.eps);
            let (saved, to) = (stats(&of.m, &of.c, &of.rstd), gradients(&mut of.dx, Some(sums)));
            layer_norm_backward(rows(&of.x), rows(&of.dy), params, Some(saved), to, of.run)
        }
    ),
    entry!(
        layer_norm_backward_in_place,
        ["x" "dy" "m" "c" "rstd" "weight" "dweight" "dbias"],
        numbers [First],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let params = params(&of.weight, &of.weight, of.eps);
            let saved = Some(stats(&of.m, &of.c, &of.rstd));
            layer_norm_backward_in_place(rows(&of.x), rows_mut(&mut of.dy), params, saved, Some(sums), of.run)
        }
    ),
    entry!(rms_norm, ["x" "y" "rstd" "weight" "bias"], numbers [Partial], + eps, |of| {
        let params = of_rms(&of.weight, &of.bias, of.eps, of.partial);
        rms_norm(rows(&of.x), params, rows_mut(&mut of.y), Some(&mut of.rstd), of.run)
    }),
    entry!(rms_norm_in_place, ["x" "rstd" "weight" "bias"], numbers [Partial], + eps, |of| {
        let params = of_rms(&of.weight, &of.bias, of.eps, of.partial);
        rms_norm_in_place(rows_mut(&mut of.x), params, Some(&mut of.rstd), of.run)
    }),
    entry!(
        rms_norm_backward,
        ["x" "dy" "dx" "rstd" "weight" "dweight" "dbias"],
        numbers [First Partial],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let params = of_rms(&of.weight, &of.weight, of.eps, of.partial);
            let to = gradients(&mut of.dx, Some(sums));
            rms_norm_backward(rows(&of.x), rows(&of.dy), params, Some(&of.rstd), to, of.run)
        }
    ),
    entry!(
        rms_norm_backward_in_place,
        ["x" "dy" "rstd" "weight" "dweight" "dbias"],
        numbers [First Partial],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let params = of_rms(&of.weight, &of.weight, of.eps, of.partial);
            let (dy, saved) = (rows_mut(&mut of.dy), Some(&of.rstd[..]));
            rms_norm_backward_in_place(rows(&of.x), dy, params, saved, Some(sums), of.run)
        }
    ),
    entry!(scale_norm, ["x" "y" "rstd"], + eps, |of| {
        scale_norm(rows(&of.x), SENTINEL, of.eps, rows_mut(&mut of.y), Some(&mut of.rstd), of.run)
    }),
    entry!(scale_norm_in_place, ["x" "rstd"], + eps, |of| {
        scale_norm_in_place(rows_mut(&mut of.x), SENTINEL, of.eps, Some(&mut of.rstd), of.run)
    }),
    entry!(scale_norm_backward, ["x" "dy" "dx" "dweight"], right [("dweight", 1)], numbers [First], + eps, |of| {
        let sums = ParamGradients { dbias: None, ..sums(&mut of.dweight, &mut [], of.first, &mut of.workspace) };
        let to = gradients(&mut of.dx, Some(sums));
        scale_norm_backward(rows(&of.x), rows(&of.dy), SENTINEL, of.eps, to, of.run)
    }),
    entry!(scale_norm_backward_in_place, ["x" "dy" "dweight"], right [("dweight", 1)], numbers [First], + eps, |of| {
        let sums = ParamGradients { dbias: None, ..sums(&mut of.dweight, &mut [], of.first, &mut of.workspace) };
        let dy = rows_mut(&mut of.dy);
        scale_norm_backward_in_place(rows(&of.x), dy, SENTINEL, of.eps, Some(sums), of.run)
    }),
    entry!(l2_norm, ["x" "y" "rstd"], + eps, |of| {
        l2_norm(rows(&of.x), of.eps, rows_mut(&mut of.y), Some(&mut of.rstd), of.run)
    }),
    entry!(l2_norm_in_place, ["x" "rstd"], + eps, |of| {
        l2_norm_in_place(rows_mut(&mut of.x), of.eps, Some(&mut of.rstd), of.run)
    }),
    entry!(l2_norm_backward, ["x" "dy" "dx"], + eps, |of| {
        l2_norm_backward(rows(&of.x), rows(&of.dy), of.eps, rows_mut(&mut of.dx), of.run)
    }),
    entry!(l2_norm_backward_in_place, ["x" "dy"], + eps, |of| {
        l2_norm_backward_in_place(rows(&of.x), rows_mut(&mut of.dy), of.eps, of.run)
    }),
    entry!(qk_norm, ["x" "y" "weight" "bias"], numbers [Heads], + eps, |of| {
        let params = of_heads(&of.weight, &of.bias, of.eps, of.heads);
        qk_norm(rows(&of.x), params, rows_mut(&mut of.y), of.run)
    }),
    entry!(qk_norm_in_place, ["weight" "bias"], numbers [Heads], + eps, |of| {
        qk_norm_in_place(rows_mut(&mut of.x), of_heads(&of.weight, &of.bias, of.eps, of.heads), of.run)
    }),
    entry!(
        qk_norm_backward,
        ["x" "dy" "dx" "weight" "dweight" "dbias"],
        right [("dweight", 12), ("dbias", 12)],
        numbers [First Heads],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let params = of_heads(&of.weight, &of.weight, of.eps, of.heads);
            let to = gradients(&mut of.dx, Some(sums));
            qk_norm_backward(rows(&of.x), rows(&of.dy), params, to, of.run)
        }
    ),
    entry!(
        qk_norm_backward_in_place,
        ["x" "dy" "weight" "dweight" "dbias"],
        numbers [First Heads],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let params = of_heads(&of.weight, &of.weight, of.eps, of.heads);
            qk_norm_backward_in_place(rows(&of.x), rows_mut(&mut of.dy), params, Some(sums), of.run)
        }
    ),
    entry!(layer_norm_quantized, ["x" "y" "scales" "weight" "bias"], + eps, |of| quantised(
        of,
        |of, y, scale| {
            layer_norm_quantized(rows(&of.x), params(&of.weight, &of.bias, of.eps), y, scale, of.run)
        }
    )),
    entry!(rms_norm_quantized, ["x" "y" "scales" "weight" "bias"], + eps, |of| quantised(of, |of, y, scale| {
        rms_norm_quantized(rows(&of.x), params(&of.weight, &of.bias, of.eps), y, scale, of.run)
    })),
    entry!(quantize, ["x" "y" "scales"], |of| quantised(of, |of, y, scale| {
        quantize(rows(&of.x), y, scale, of.run)
    })),
    entry!(silu, ["x" "y"], |of| silu(&of.x, &mut of.y, of.run)),
    entry!(silu_in_place, [], |of| silu_in_place(&mut of.x, of.run)),
    entry!(silu_backward, ["x" "dy" "dx"], |of| silu_backward(&of.x, &of.dy, &mut of.dx, of.run)),
    entry!(silu_backward_in_place, ["x" "dy"], |of| silu_backward_in_place(&of.x, &mut of.dy, of.run)),
    entry!(widen, ["x" "y"], |of| {
        widen(&vec![half::f16::ONE; of.x.len()], &mut of.y, of.run)
    }),
    entry!(narrow, ["x" "y"], |of| {
        let mut to = vec![half::f16::NEG_ONE; of.y.len()];
        let result = narrow(&of.x, &mut to, of.run);
        assert!(result.is_ok() || to.iter().all(|half| *half == half::f16::NEG_ONE), "halves were written");
        result
    }),
];
