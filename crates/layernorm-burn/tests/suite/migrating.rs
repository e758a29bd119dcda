//! The rows of docs/migrating.md about `burn::nn`, against its own defaults and ours.

use super::*;
use layernorm_conformance::migrating::{Row, rows_of};

/// The row says what theirs and ours have: epsilon, parameters, and what -1 and 1 become.
fn check<const D: usize>(row: &Row, eps: [f64; 2], parameters: &[&str], [theirs, ours]: [Tensor<D>; 2]) {
    assert_eq!(eps.map(Some), [row.eps; 2], "{}", row.norm);
    assert_eq!(row.parameters, parameters, "{}", row.norm);
    let [theirs, ours] = [theirs, ours].map(|y| vec_of::<f32, D>(y.without_autodiff()));
    for y in [theirs, ours] {
        let one = row.one_becomes.expect("what 1 becomes");
        assert!((f64::from(y[1]) - one).abs() < 5e-7, "{}: {y:?}, not {one}", row.norm);
    }
}

#[test]
fn the_rows_of_burn_nn() {
    let device = Device::flex().autodiff();
    let row_of_two = Tensor::<2>::from_data([[-1.0, 1.0]], &device);
    // Twice, because Burn's group norm takes no two numbers.
    let pictures = Tensor::<3>::from_data([[[-1.0, 1.0, -1.0, 1.0]]], &device);
    // A module of theirs and of ours, as far as they are not told more than they must be.
    macro_rules! both {
        ($config:ident($($argument:expr),*), $row:expr, $x:expr, [$($parameter:ident),*]) => {{
            let theirs = burn::nn::$config::new($($argument),*);
            let ours = layernorm_burn::$config::new($($argument),*);
            let eps = [theirs.epsilon, ours.epsilon];
            let (theirs, ours) = (theirs.init(&device), ours.init(&device));
            // That they have these.
            $(let _ = (&theirs.$parameter, &ours.$parameter);)*
            let y = [theirs.forward($x.clone()), ours.forward($x.clone())];
            check($row, eps, &[$(stringify!($parameter)),*], y);
            (theirs, ours)
        }};
    }
    let rows = rows_of("burn::nn 0.22");
    for row in &rows {
        match row.norm {
            "LayerNorm" => drop(both!(LayerNormConfig(2), row, row_of_two, [gamma, beta])),
            "RmsNorm" => drop(both!(RmsNormConfig(2), row, row_of_two, [gamma])),
            "GroupNorm" => drop(both!(GroupNormConfig(1, 1), row, pictures, [gamma, beta])),
            "InstanceNorm" => drop(both!(InstanceNormConfig(1), row, pictures, [gamma, beta])),
            "BatchNorm" => {
                let (theirs, ours) = both!(BatchNormConfig(1), row, pictures, [gamma, beta]);
                let [past, weight] = row.momentum.expect("a momentum");
                assert_eq!([theirs.momentum, ours.momentum], [weight; 2], "momentum");
                // The variance is 1, or 4 / 3 unbiased; a running variance begins at 1.
                let var = past + weight * if row.unbiased == Some(true) { 4.0 / 3.0 } else { 1.0 };
                for running in [theirs.running_var.value_sync(), ours.running_var.value_sync()] {
                    let [got] = vec_of::<f32, 1>(running.without_autodiff())[..] else {
                        panic!("one channel")
                    };
                    assert!((f64::from(got) - var).abs() < 1e-6, "{got}");
                }
            }
            other => panic!("Burn has no {other}"),
        }
    }
    assert_eq!(rows.len(), 5, "norms of Burn");
}
