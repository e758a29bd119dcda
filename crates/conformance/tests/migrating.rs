//! Each row of the table in docs/migrating.md, against the kernels. (What the defaults of candle and Burn are, their own
//! crates' tests compare.)

use layernorm::{
    Activation, Batch, BatchMut, Convention, Groups, Images, Instances, Layout, Params, Rows, RowsMut, Run,
    RunningStats, Stats, Training, Workspace,
};
use layernorm_conformance::migrating::{Row, rows};

/// What the function `here` makes of the row -1, 1 with this epsilon: of one group, channel or sample, that is.
fn norm(here: &str, eps: f64) -> Result<[f64; 2], layernorm::Error> {
    let (x, mut y, run) = ([-1.0, 1.0], [0.0; 2], Run::default());
    let params = Params { eps, ..Params::<f64>::default() };
    let (images, activation) = (Images::new(1, 1, &[2], Layout::ChannelsFirst)?, Activation::None);
    let mut workspace = Workspace::new();
    match here {
        "layer_norm" => {
            layernorm::layer_norm(Rows::new(&x, 2)?, params, RowsMut::new(&mut y, 2)?, None, run)?;
        }
        "rms_norm" => layernorm::rms_norm(Rows::new(&x, 2)?, params, RowsMut::new(&mut y, 2)?, None, run)?,
        "group_norm" => {
            let norm = Groups { images, groups: 1, params, activation };
            layernorm::group_norm(norm, &x, &mut y, None, &mut workspace, run)?;
        }
        "instance_norm" => {
            let norm = Instances { images, params, activation };
            layernorm::instance_norm(norm, &x, &mut y, None, &mut workspace, run)?;
        }
        "batch_norm_train" => {
            let mut saved = Stats::new(1);
            let (x, to) = (Rows::new(&x, 2)?, RowsMut::new(&mut y, 2)?);
            let training = Training::new(saved.as_mut(), &mut workspace);
            let (x, to) = (Batch::channels_first(x, 1)?, BatchMut::channels_first(to, 1)?);
            layernorm::batch_norm_train(x, params, to, training, run)?;
        }
        _ => panic!("there is no {here}"),
    }
    Ok(y)
}

#[test]
fn one_becomes_what_the_row_says() -> Result<(), layernorm::Error> {
    let rows = rows();
    assert!(rows.len() > 30, "the table has {} rows", rows.len());
    for Row { framework, norm: name, here, eps, one_becomes, .. } in rows {
        // Where a caller gives it, any is as good.
        let [minus_one, one] = norm(here, eps.unwrap_or(1e-5))?;
        assert_eq!(minus_one, -one, "{framework} {name}");
        assert_eq!(eps.is_some(), one_becomes.is_some(), "{framework} {name}");
        if let Some(expected) = one_becomes {
            // As many digits as the table has.
            assert!(
                (one - expected).abs() <= 0.5e-7,
                "{framework} {name}: {one} where {expected} is written"
            );
        }
    }
    Ok(())
}

/// Whose formula a framework's batch norm has. Burn's is none of them: PyTorch's momentum, and the biased variance.
fn convention(framework: &str) -> Option<Convention> {
    match framework {
        "PyTorch" | "tch" | "candle_nn 0.11" => Some(Convention::PYTORCH),
        "Keras 3" => Some(Convention::KERAS),
        "tf.keras" => Some(Convention::TF_KERAS),
        "Flax" => Some(Convention::FLAX),
        "ONNX" => Some(Convention::ONNX),
        _ => None,
    }
}

#[test]
fn running_statistics_move_as_the_row_says() -> Result<(), layernorm::Error> {
    let mut frameworks = Vec::new();
    for Row { framework, here, eps, momentum, unbiased, .. } in rows() {
        assert_eq!(momentum.is_some(), here == "batch_norm_train", "{framework} {here}");
        assert_eq!(momentum.is_some(), unbiased.is_some(), "{framework} {here}");
        let (Some([past, batch]), Some(unbiased)) = (momentum, unbiased) else { continue };
        let Some(convention) = convention(framework) else { continue };
        frameworks.push(framework);
        assert_eq!(eps, Some(convention.eps()), "{framework}");
        // From mean 0 and variance 1, by numbers with mean 2 and variance 1, or 2 if it is unbiased.
        let (mut running, mut saved, mut workspace) = (RunningStats::new(1), Stats::new(1), Workspace::new());
        let mut training = Training::new(saved.as_mut(), &mut workspace);
        training.running = Some(running.as_mut(convention));
        let (x, mut y) = ([1.0, 3.0], [0.0f64; 2]);
        let x = Batch::channels_last(Rows::new(&x, 1)?, 1)?;
        let y = BatchMut::channels_last(RowsMut::new(&mut y, 1)?, 1)?;
        layernorm::batch_norm_train(x, Params::<f64>::default(), y, training, Run::default())?;
        let var = if unbiased { 2.0 } else { 1.0 };
        let close = |got: f64, expected: f64| (got - expected).abs() < 1e-12;
        assert!(close(running.mean[0], batch * 2.0), "{framework}: mean {:?}", running.mean);
        assert!(close(running.var[0], past + batch * var), "{framework}: variance {:?}", running.var);
    }
    assert_eq!(frameworks.len(), 7, "{frameworks:?}");
    Ok(())
}
