//! How a framework is asked.

use crate::outputs::Output;
use crate::{Case, Name, Number, Outputs, Report, cases, expected::expected, report::difference};
use half::{bf16, f16};

/// A framework: it runs one case.
pub trait Backend<E: Number> {
    /// The outputs of `case`: all that the framework has.
    ///
    /// # Errors
    /// [`unsupported`] what it lacks, which the report counts. Any other error is a difference.
    fn run(&self, case: &Case<E>) -> Result<Outputs<E>, Failure>;
}

/// Why there are no outputs. Any error turns into one.
#[derive(Debug)]
pub enum Failure {
    /// The framework has no such thing, for this reason.
    Unsupported(&'static str),
    /// It has, and failed.
    Failed(String),
}

impl<T: std::error::Error> From<T> for Failure {
    fn from(error: T) -> Self {
        // What some frameworks write below is a backtrace.
        Self::Failed(error.to_string().lines().next().unwrap_or_default().to_string())
    }
}

/// The framework lacks what a case needs.
pub fn unsupported(reason: &'static str) -> Failure {
    Failure::Unsupported(reason)
}

/// All cases, of all types.
pub fn run<B>(backend: &B) -> Report
where
    B: Backend<f32> + Backend<f64> + Backend<f16> + Backend<bf16>,
{
    let mut report = Report::default();
    run_type::<f32, B>(backend, &mut report);
    run_type::<f64, B>(backend, &mut report);
    run_type::<f16, B>(backend, &mut report);
    run_type::<bf16, B>(backend, &mut report);
    report
}

fn run_type<E: Number, B: Backend<E>>(backend: &B, report: &mut Report) {
    for case in cases::<E>() {
        report.cases += 1;
        match backend.run(&case) {
            Ok(outputs) => compare(&case, &outputs, report),
            Err(Failure::Unsupported(reason)) => report.lacks(case.operator, reason),
            Err(Failure::Failed(why)) => report.differs(&case, why),
        }
    }
}

fn compare<E: Number>(case: &Case<E>, outputs: &Outputs<E>, report: &mut Report) {
    let expected = match expected(case) {
        Ok(expected) => expected,
        Err(error) => return report.differs(case, format!("the kernels refuse it: {error}")),
    };
    let wanted = |name: Name| expected.0.iter().any(|(of, _)| *of == name);
    if let Some((name, _)) = outputs.0.iter().find(|(name, _)| !wanted(*name)) {
        report.differs(case, format!("{name}: the kernels do not give it"));
    }
    for (name, wanted) in &expected.0 {
        let Output::Given { values: wanted, .. } = wanted else { continue };
        match outputs.0.iter().find(|(of, _)| of == name) {
            Some((_, Output::Lacking(reason))) => report.lacks(name, reason),
            Some((_, Output::Given { values, added_to_zeros })) => {
                match difference(values, wanted, *added_to_zeros) {
                    None => report.same += 1,
                    Some(what) => report.differs(case, format!("{name}: {what}")),
                }
            }
            None => report.differs(case, format!("{name}: it was not given")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, Values};

    /// The kernels themselves, but for one bit of one number, if they are to err.
    struct Kernels {
        err: bool,
    }

    impl<E: Number> Backend<E> for Kernels {
        fn run(&self, case: &Case<E>) -> Result<Outputs<E>, Failure> {
            let mut outputs = expected(case)?;
            let (_, first) = &mut outputs.0[0];
            if let Output::Given { values: Values::Own(y), .. } = first
                && self.err
                && case.data == Data::Plain
            {
                y[0] = E::nearest(-y[0].exact());
            }
            Ok(outputs)
        }
    }

    #[test]
    fn the_kernels_take_every_case() {
        run(&Kernels { err: false }).assert(&[]);
    }

    #[test]
    fn a_sign_is_seen() {
        let plain = [
            cases::<f32>().filter(|case| case.data == Data::Plain).count(),
            cases::<f64>().filter(|case| case.data == Data::Plain).count(),
        ];
        let halves = cases::<f16>().filter(|case| case.data == Data::Plain).count() * 2;
        assert_eq!(run(&Kernels { err: true }).differences.len(), plain.iter().sum::<usize>() + halves);
    }
}
