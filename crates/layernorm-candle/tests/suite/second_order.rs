//! Gradients of gradients, which candle has where its variable is set before the program starts.

use super::*;

const VARIABLE: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// The second derivative of each norm in a direction, against differences of the first. By itself it says nothing: the
/// test below starts it with the variable.
#[test]
fn with_the_variable() -> Result<()> {
    if std::env::var(VARIABLE).is_err() {
        return Ok(());
    }
    for norm in NORMS {
        // Of halves, in f32.
        for dtype in [DType::F16, DType::BF16] {
            let (x, weight) = (variable(&[2, 5], 1, dtype)?, variable(&[5], 2, DType::F32)?);
            let y = norm.of(&x, Some(&weight), None)?;
            let expected = norm.of(&x.to_dtype(DType::F32)?, Some(&weight), None)?;
            assert_same(&y, &expected.to_dtype(dtype)?, &format!("{norm:?} {dtype:?}"))?;
            let gradients = y.sqr()?.sum_all()?.backward()?;
            let types = [&x, &weight].map(|var| gradient(&gradients, var).dtype());
            assert_eq!(types, [dtype, DType::F32]);
        }
        let weight = variable(&[5], 2, DType::F64)?;
        let direction = tensor(&[2, 5], 7, DType::F64)?;
        let slope = |x: &Tensor| -> Result<Tensor> {
            let gradients = norm.of(x, Some(&weight), None)?.tanh()?.sum_all()?.backward()?;
            (gradient(&gradients, x) * &direction)?.sum_all()
        };
        let start = tensor(&[2, 5], 1, DType::F64)?;
        let x = Var::from_tensor(&start)?;
        let second = slope(&x)?.backward()?;
        let got = values(gradient(&second, &x))?;
        for (index, got) in got.into_iter().enumerate() {
            let shifted = |step: f64| -> Result<f64> {
                let mut values = values(&start)?;
                values[index] += step;
                let x = Var::from_vec(values, (2, 5), &CPU)?;
                slope(&x)?.to_scalar()
            };
            let want = (shifted(1e-5)? - shifted(-1e-5)?) / 2e-5;
            assert!((got - want).abs() <= 1e-5 * (1.0 + want.abs()), "{norm:?}: {got} and {want}");
        }
    }
    Ok(())
}

/// The same of every function, in its first input.
#[test]
fn of_every_function_with_the_variable() -> Result<()> {
    if std::env::var(VARIABLE).is_err() {
        return Ok(());
    }
    for (name, shapes, f) in gradients::cases() {
        let inputs = shapes.iter().zip(1..).map(|(shape, seed)| tensor(shape, seed, DType::F64));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let direction = tensor(&shapes[0], 50, DType::F64)?;
        let slope = |x: &Tensor| -> Result<Tensor> {
            let mut inputs = inputs.clone();
            inputs[0] = x.clone();
            (gradient(&gradients::loss(f, &inputs)?.backward()?, x) * &direction)?.sum_all()
        };
        let x = Var::from_tensor(&inputs[0])?;
        let got = values(gradient(&slope(&x)?.backward()?, &x))?;
        for (index, got) in got.into_iter().enumerate() {
            let shifted = |step: f64| -> Result<f64> {
                let mut values = values(&inputs[0])?;
                values[index] += step;
                let x = Var::from_vec(values, &shapes[0][..], &CPU)?;
                slope(&x)?.to_scalar()
            };
            let want = (shifted(1e-5)? - shifted(-1e-5)?) / 2e-5;
            assert!((got - want).abs() <= 1e-5 * (1.0 + want.abs()), "{name}: {got} and {want}");
        }
    }
    Ok(())
}

#[test]
fn are_right_with_the_variable() {
    let this = std::env::current_exe().expect("the path of the tests");
    for test in ["with_the_variable", "of_every_function_with_the_variable"] {
        let mut command = std::process::Command::new(&this);
        let output = command.args(["--exact", &format!("second_order::{test}")]).env(VARIABLE, "1").output();
        let output = output.expect("the tests start");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
