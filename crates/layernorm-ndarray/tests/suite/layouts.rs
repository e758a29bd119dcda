//! Every layout by its name, and what a person would do with it.

use super::*;
use ndarray::{Array1, Array2, Array3, array, s};

#[test]
fn each_layout_along_each_axis() {
    let shape = [3, 5, 4];
    let all = [
        Lie::c(3),
        Lie::fortran(3),
        Lie::order(&[1, 0, 2]),
        Lie::order(&[0, 2, 1]),
        Lie::steps(&[1, 2, 1]),
        Lie::steps(&[2, 1, 3]),
        Lie::steps(&[-1, 1, 1]),
        Lie::steps(&[1, 1, -1]),
        Lie::steps(&[-2, -1, -3]),
    ];
    // Under Miri two, which are far from each other.
    let lies = if cfg!(miri) { &all[7..] } else { &all[..] };
    for axes in [&[0][..], &[1], &[2], &[1, 2], &[0, 2], &[2, 0], &[0, 1, 2]] {
        for (index, x) in lies.iter().enumerate() {
            let other = |by: usize| lies[(index + by) % lies.len()].clone();
            for lies in [[0, 0, 0, 0], [0, 1, 3, 6], [0, 6, 0, 2]] {
                let lies = lies.map(|by| if by == 0 { x.clone() } else { other(by) });
                Case::new(&shape, axes, lies).check::<f32, f32>(one_thread());
            }
        }
    }
}

#[test]
fn all_types() {
    for lie in [Lie::c(2), Lie::fortran(2), Lie::steps(&[1, 2])] {
        for axis in [0, 1] {
            let case = Case::new(&[9, 37], &[axis], [(); 4].map(|()| lie.clone()));
            case.check::<f64, f64>(one_thread());
            case.check::<f16, f16>(one_thread());
            case.check::<f16, f32>(one_thread());
            case.check::<bf16, bf16>(one_thread());
            case.check::<bf16, f32>(one_thread());
        }
    }
}

#[test]
fn a_broadcast_input() -> Result<(), Error> {
    let row = array::<f32>(&[4], 1);
    let x = row.broadcast(IxDyn(&[3, 5, 4])).expect("broadcast");
    let copied = x.to_owned();
    for axis in 0..3 {
        let norm = || Norm::<f32>::over(Axis(axis));
        for kind in KINDS {
            let got = kind.array(x.view(), norm(), one_thread())?;
            let expected = kind.array(copied.view(), norm(), one_thread())?;
            assert_bits(
                &rows(&got.view(), &[]),
                &rows(&expected.view(), &[]),
                &format!("{kind:?} axis {axis}"),
            );
        }
    }
    Ok(())
}

/// x and y are the columns of one matrix: between the rows of each lie those of the other.
#[test]
fn interleaved_views() -> Result<(), Error> {
    for (rows_of, n) in if cfg!(miri) { &[(6, 8)][..] } else { &[(6, 8), (40, 700)] } {
        let (mut both, n) = (array::<f32>(&[*rows_of, 2 * n], 1), *n);
        let expected = Kind::Layer.array(
            both.slice_axis(Axis(1), (..n).into()),
            Norm::<f32>::over(Axis(1)),
            one_thread(),
        )?;
        let (x, y) = both.view_mut().split_at(Axis(1), n);
        layernorm_ndarray::layer_norm(x.view(), Norm::<f32>::over(Axis(1)), y, None, one_thread())?;
        assert_bits(&rows(&both.slice_axis(Axis(1), (n..).into()), &[]), &rows(&expected.view(), &[]), "y");
    }
    Ok(())
}

#[test]
fn parameters_in_any_layout_and_of_the_shape_of_the_axes() -> Result<(), Error> {
    let x = Array3::from_shape_vec((2, 3, 4), numbers::<f32>(24, 1)).expect("24 numbers");
    let weight = Array2::from_shape_vec((3, 4), numbers::<f32>(12, 2)).expect("12 numbers");
    let in_a_row: Array1<f32> = weight.iter().copied().collect();
    let (transposed, mut doubled) = (weight.t().as_standard_layout().into_owned(), Array1::zeros(24));
    doubled.slice_mut(s![..;-2]).assign(&in_a_row);
    let run = one_thread();
    let axes = [Axis(1), Axis(2)];
    let norm = || Norm::over(&axes);
    let expected = layernorm_ndarray::layer_norm_array(x.view(), norm().with_weight(&in_a_row), run)?;
    for norm in [
        norm().with_weight(&weight),
        norm().with_weight(transposed.t()),
        norm().with_weight(doubled.slice(s![..;-2])),
        Norm::over(&[Axis(2), Axis(1)]).with_weight(&weight),
    ] {
        assert_eq!(layernorm_ndarray::layer_norm_array(x.view(), norm.clone(), run)?, expected);
        // The gradient of a weight has its shape; in memory it may lie in any way too.
        let gradients = layernorm_ndarray::layer_norm_backward_arrays(x.view(), x.view(), norm.clone(), run)?;
        let dweight = gradients.dweight.expect("dweight");
        assert_eq!(Some(dweight.shape()), norm.weight.as_ref().map(ArrayViewD::shape));
        let (mut backwards, mut workspace) = (Array1::<f32>::from_elem(24, 7.0), Workspace::new());
        let to = backwards.slice_mut(s![..;-2]).into_dyn();
        let params =
            ParamGradients { dbias: Some(to), accumulate: true, ..ParamGradients::new(&mut workspace) };
        let gradients = Gradients { dx: None, params: Some(params) };
        layernorm_ndarray::layer_norm_backward(x.view(), x.view(), norm, None, gradients, run)?;
        let dbias: Vec<f32> = backwards.slice(s![..;-2]).iter().copied().collect();
        let expected = (&x.index_axis(Axis(0), 0) + &x.index_axis(Axis(0), 1)).mapv(|sum| 7.0 + sum);
        assert_bits(&dbias, &expected.iter().copied().collect::<Vec<_>>(), "dbias");
        assert!(backwards.slice(s![..;2]).iter().all(|&between| between == 7.0), "between");
    }
    Ok(())
}

#[test]
fn a_new_array_has_the_order_of_x() -> Result<(), Error> {
    let x = Array2::<f32>::from_shape_vec((3, 4), numbers(12, 1)).expect("12 numbers");
    let norm = || Norm::<f32>::over(Axis(1));
    let of = |x| layernorm_ndarray::rms_norm_array(x, norm(), one_thread());
    assert_eq!(of(x.view())?.strides(), [4, 1]);
    assert_eq!(of(x.t())?.strides(), [1, 4]);
    assert_eq!(of(x.slice(s![..;2, ..;2]))?.strides(), [2, 1]);
    Ok(())
}

/// NaN spoils its own row, and columns are rows too.
#[test]
fn special_rows() -> Result<(), Error> {
    let x = array![[1.0f32, 3e38, f32::NAN, 5.0], [3.0, -3e38, 1.0, 5.0]];
    let y = layernorm_ndarray::layer_norm_array(
        x.view(),
        Norm::<f32>::over(Axis(0)).with_eps(0.0),
        one_thread(),
    )?;
    assert_eq!(y.column(0), array![-1.0, 1.0]);
    assert_eq!(y.column(1), array![1.0, -1.0]);
    assert!(y.column(2).iter().all(|y| y.is_nan()));
    assert_eq!(y.column(3), array![0.0, 0.0]);
    Ok(())
}
