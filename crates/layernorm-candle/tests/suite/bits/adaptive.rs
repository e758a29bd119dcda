//! Adaptive norms.

use super::*;
use layernorm::{AdaGradients, Modulation, ModulationGradients, Rows, RowsMut, Run, ScaleIs, Workspace};

const FEATURES: usize = 37;

/// y and dx, dscale and dshift by the kernels on slices.
fn by_kernels<E: Number, P: Companion<E>>(
    norm: Norm,
    [x, dy]: [&[E]; 2],
    [scale, shift]: [&[P]; 2],
) -> std::result::Result<Expected<E>, layernorm::Error> {
    let (mut y, mut dx) = (zeros::<E>(x.len()), zeros::<E>(x.len()));
    let (mut dscale, mut dshift) = (zeros::<E::Acc>(scale.len()), zeros::<E::Acc>(scale.len()));
    let modulation = Modulation {
        scale: Rows::new(scale, FEATURES)?,
        shift: Some(Rows::new(shift, FEATURES)?),
        scale_is: ScaleIs::AboveOne,
        eps: EPS,
    };
    let sums = ModulationGradients {
        dscale: Some(RowsMut::new(&mut dscale, FEATURES)?),
        dshift: Some(RowsMut::new(&mut dshift, FEATURES)?),
        accumulate: false,
        workspace: &mut Workspace::new(),
    };
    let gradients = AdaGradients { dx: Some(RowsMut::new(&mut dx, FEATURES)?), modulation: Some(sums) };
    let (x, dy, to) = (Rows::new(x, FEATURES)?, Rows::new(dy, FEATURES)?, RowsMut::new(&mut y, FEATURES)?);
    let run = Run::default();
    match norm {
        Norm::Layer => {
            layernorm::ada_layer_norm(x, modulation, to, None, run)?;
            layernorm::ada_layer_norm_backward(x, dy, modulation, None, gradients, run)?;
        }
        Norm::Rms => {
            layernorm::ada_rms_norm(x, modulation, to, None, run)?;
            layernorm::ada_rms_norm_backward(x, dy, modulation, None, gradients, run)?;
        }
    }
    Ok(([y, dx], [dscale, dshift]))
}

/// With scale and shift as the halves of one tensor, as a linear layer gives them.
fn same_as_slices<E: Number, P: Companion<E> + WithDType>(
    norm: Norm,
    condition: &[usize],
    (name, shape, view): View,
) -> Result<()> {
    let leaf = variable(&shape(FEATURES), 1, E::DTYPE)?;
    let both = variable(&[condition, &[2 * FEATURES]].concat(), 2, P::DTYPE)?;
    let last = both.rank() - 1;
    let half = |of: &Tensor, index| of.narrow(last, index * FEATURES, FEATURES);
    let (x, scale, shift) = (view(&leaf)?, half(&both, 0)?, half(&both, 1)?);
    let dy = tensor(&[4, 6, FEATURES], 4, E::DTYPE)?;
    let y = match norm {
        Norm::Layer => layernorm_candle::ops::adaptive_layer_norm(&x, &scale, &shift, EPS)?,
        Norm::Rms => layernorm_candle::ops::adaptive_rms_norm(&x, &scale, &shift, EPS)?,
    };
    let gradients = (&y * &dy)?.sum_all()?.backward()?;

    let slice = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<E>();
    let parameter = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<P>();
    let ([expected_y, expected_dx], sums) =
        by_kernels(norm, [&slice(&x)?, &slice(&dy)?], [&parameter(&scale)?, &parameter(&shift)?])
            .expect("the shapes fit");
    let what = format!("{norm:?} {:?} {:?} {condition:?} {name}", E::DTYPE, P::DTYPE);
    assert_same(&y, &flat(expected_y)?, &format!("y {what}"))?;
    if name != "one row many times" {
        let dx = view(gradient(&gradients, &leaf))?;
        assert_same(&dx, &(flat(expected_dx)? + 0.0)?, &format!("dx {what}"))?;
    }
    for (index, sums) in sums.into_iter().enumerate() {
        let expected = (flat(sums)?.to_dtype(P::DTYPE)? + 0.0)?;
        assert_same(&half(gradient(&gradients, &both), index)?, &expected, &format!("half {index} {what}"))?;
    }
    Ok(())
}

#[test]
fn the_same_as_the_kernels_on_slices() -> Result<()> {
    for (norm, view) in NORMS.into_iter().flat_map(|norm| VIEWS.map(|view| (norm, view))) {
        // A condition for each of four samples, for all, for each position of each.
        for condition in [&[4][..], &[], &[4, 6]] {
            same_as_slices::<f32, f32>(norm, condition, view)?;
            same_as_slices::<f64, f64>(norm, condition, view)?;
            same_as_slices::<f16, f32>(norm, condition, view)?;
            same_as_slices::<bf16, bf16>(norm, condition, view)?;
        }
    }
    Ok(())
}
