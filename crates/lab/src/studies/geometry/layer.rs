//! A generalized linear model with a norm between weights and outputs, in f64 and with eps 0: outputs, their exact
//! derivatives, and the Fisher metric that follows (Ba, Kiros, Hinton 2016, section 5.2).
//!
//! ```text
//! a = W x                                    eta = g (a - mu)/s + b
//! exact Jacobian of layer norm:   d eta_k / d w_i = (g_k/s) (delta_ki - 1/H - z_k z_i/H) x,   z = (a - mu)/s
//! Fisher metric:                  d^T F d = mean over cases of sum_k Cov_k (d eta_k along d)^2
//! ```
//!
//! Everything is made of one function, the derivative of eta along a direction: no matrix F is ever formed.

use crate::rng::Rng;

/// Outputs, inputs and cases.
pub const OUTPUTS: usize = 12;
pub const INPUTS: usize = 10;
pub const CASES: usize = 48;

/// The norm between weights and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    None,
    Layer,
    Rms,
    Batch,
    Weight,
}

/// What is predicted, which decides the covariance of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Independent bells of variance 1 around eta.
    Gaussian,
    /// Independent coins, heads with the probability sigmoid(eta).
    Bernoulli,
}

/// A matrix, row after row.
pub type Rows = Vec<Vec<f64>>;

/// Weights, gain and bias; cases and what was observed for them.
#[derive(Clone, Debug)]
pub struct Model {
    pub method: Method,
    pub family: Family,
    pub w: Rows,
    pub gain: Vec<f64>,
    pub bias: Vec<f64>,
    pub x: Rows,
    pub observed: Rows,
}

impl Model {
    /// Bells for weights and cases, gains around 1, coins for what was observed.
    pub fn new(method: Method, family: Family, rng: &mut Rng) -> Self {
        let mut bells = |rows: usize, columns: usize| -> Rows {
            (0..rows).map(|_| (0..columns).map(|_| f64::from(rng.bell())).collect()).collect()
        };
        let (w, x) = (bells(OUTPUTS, INPUTS), bells(CASES, INPUTS));
        let affine = bells(2, OUTPUTS);
        let observed = bells(CASES, OUTPUTS);
        Self {
            method,
            family,
            w,
            gain: affine[0].iter().map(|v| 1.0 + 0.3 * v).collect(),
            bias: affine[1].iter().map(|v| 0.3 * v).collect(),
            x,
            observed: map(&observed, |v| if v > 0.0 { 1.0 } else { 0.0 }),
        }
    }

    /// The same with all weights, or all cases, times a factor.
    pub fn scaled(&self, weights: f64, data: f64) -> Self {
        Self { w: map(&self.w, |v| weights * v), x: map(&self.x, |v| data * v), ..self.clone() }
    }

    /// The same after a step.
    pub fn moved(&self, along: &Rows, by: f64) -> Self {
        let add = |w: &Vec<f64>, d: &Vec<f64>| w.iter().zip(d).map(|(w, d)| w + by * d).collect();
        Self { w: self.w.iter().zip(along).map(|(w, d)| add(w, d)).collect(), ..self.clone() }
    }

    /// eta, before gain and bias: z for every case and output.
    fn z(&self) -> Rows {
        let a = products(&self.x, &self.w);
        match self.method {
            Method::None => a,
            Method::Layer => a.iter().map(|row| normalised(row, true)).collect(),
            Method::Rms => a.iter().map(|row| normalised(row, false)).collect(),
            Method::Batch => turned(&turned(&a).iter().map(|unit| normalised(unit, true)).collect()),
            Method::Weight => {
                let lengths: Vec<f64> = self.w.iter().map(|w| length(w)).collect();
                a.iter().map(|row| row.iter().zip(&lengths).map(|(a, l)| a / l).collect()).collect()
            }
        }
    }

    /// The derivative of z along a direction of the weights.
    fn z_along(&self, d: &Rows) -> Rows {
        let (a, along) = (products(&self.x, &self.w), products(&self.x, d));
        let both = |a: &Rows, along: &Rows, centred: bool| -> Rows {
            a.iter().zip(along).map(|(a, along)| normalised_along(a, along, centred)).collect()
        };
        match self.method {
            Method::None => along,
            Method::Layer => both(&a, &along, true),
            Method::Rms => both(&a, &along, false),
            Method::Batch => turned(&both(&turned(&a), &turned(&along), true)),
            Method::Weight => {
                let unit = |k: usize, a: f64, along: f64| {
                    let l = length(&self.w[k]);
                    along / l - a * dot(&self.w[k], &d[k]) / l.powi(3)
                };
                let row = |(a, along): (&Vec<f64>, &Vec<f64>)| {
                    a.iter().zip(along).enumerate().map(|(k, (a, along))| unit(k, *a, *along)).collect()
                };
                a.iter().zip(&along).map(row).collect()
            }
        }
    }

    /// The same for layer norm if only the derivative of each unit by its own weights is kept, as equations 13 and 14 of
    /// the paper do: mean and deviation are shared, so this leaves something out.
    fn z_along_own(&self, d: &Rows) -> Rows {
        let (a, along) = (products(&self.x, &self.w), products(&self.x, d));
        let h = OUTPUTS as f64;
        let row = |(a, along): (&Vec<f64>, &Vec<f64>)| {
            let z = normalised(a, true);
            let s = deviation(a, true);
            z.iter().zip(along).map(|(z, along)| (1.0 - 1.0 / h - z * z / h) * along / s).collect()
        };
        a.iter().zip(&along).map(row).collect()
    }

    /// eta for every case and output.
    pub fn eta(&self) -> Rows {
        let affine =
            |z: &Vec<f64>| z.iter().zip(&self.gain).zip(&self.bias).map(|((z, g), b)| g * z + b).collect();
        self.z().iter().map(affine).collect()
    }

    /// d^T F d, exactly, or from the units' own derivatives alone.
    pub fn metric(&self, d: &Rows, own_only: bool) -> f64 {
        let along = if own_only { self.z_along_own(d) } else { self.z_along(d) };
        let eta = self.eta();
        let case = |(eta, along): (&Vec<f64>, &Vec<f64>)| -> f64 {
            let unit = |k: usize| self.family.variance(eta[k]) * (self.gain[k] * along[k]).powi(2);
            (0..OUTPUTS).map(unit).sum()
        };
        eta.iter().zip(&along).map(case).sum::<f64>() / CASES as f64
    }

    /// The trace of the weights' block of F.
    pub fn trace(&self) -> f64 {
        directions().map(|d| self.metric(&d, false)).sum()
    }

    /// The gradient of the mean negative log-likelihood by the weights.
    pub fn gradient(&self) -> Rows {
        let errors = self.errors();
        let along = |d: Rows| -> f64 {
            let along = self.z_along(&d);
            let case = |(error, along): (&Vec<f64>, &Vec<f64>)| -> f64 {
                (0..OUTPUTS).map(|k| error[k] * self.gain[k] * along[k]).sum()
            };
            errors.iter().zip(&along).map(case).sum::<f64>() / CASES as f64
        };
        let flat: Vec<f64> = directions().map(along).collect();
        flat.chunks(INPUTS).map(<[f64]>::to_vec).collect()
    }

    /// The gradient by the gain.
    pub fn gain_gradient(&self) -> Vec<f64> {
        let (errors, z) = (self.errors(), self.z());
        let unit = |k: usize| errors.iter().zip(&z).map(|(e, z)| e[k] * z[k]).sum::<f64>() / CASES as f64;
        (0..OUTPUTS).map(unit).collect()
    }

    /// Prediction less observation.
    fn errors(&self) -> Rows {
        let case = |(eta, seen): (&Vec<f64>, &Vec<f64>)| {
            eta.iter().zip(seen).map(|(eta, seen)| self.family.mean(*eta) - seen).collect()
        };
        self.eta().iter().zip(&self.observed).map(case).collect()
    }

    /// The divergence of the predictions of `other` from these, the mean over cases.
    pub fn divergence(&self, other: &Self) -> f64 {
        let case = |(a, b): (&Vec<f64>, &Vec<f64>)| -> f64 {
            a.iter().zip(b).map(|(a, b)| self.family.divergence(*a, *b)).sum()
        };
        self.eta().iter().zip(&other.eta()).map(case).sum::<f64>() / CASES as f64
    }
}

impl Family {
    /// The mean of the observation.
    fn mean(self, eta: f64) -> f64 {
        match self {
            Self::Gaussian => eta,
            Self::Bernoulli => 1.0 / (1.0 + (-eta).exp()),
        }
    }

    /// Its variance: for both, the derivative of the mean.
    fn variance(self, eta: f64) -> f64 {
        match self {
            Self::Gaussian => 1.0,
            Self::Bernoulli => self.mean(eta) * self.mean(-eta),
        }
    }

    /// Kullback and Leibler's divergence of two such observations.
    fn divergence(self, a: f64, b: f64) -> f64 {
        let softplus = |v: f64| v.max(0.0) + (-v.abs()).exp().ln_1p();
        match self {
            Self::Gaussian => (a - b).powi(2) / 2.0,
            Self::Bernoulli => softplus(b) - softplus(a) - self.mean(a) * (b - a),
        }
    }
}

/// One for each weight: 1 there and 0 elsewhere.
fn directions() -> impl Iterator<Item = Rows> {
    (0..OUTPUTS * INPUTS).map(|at| {
        let mut d = vec![vec![0.0; INPUTS]; OUTPUTS];
        d[at / INPUTS][at % INPUTS] = 1.0;
        d
    })
}

/// The length of all numbers of a matrix as one vector.
pub fn size(rows: &Rows) -> f64 {
    rows.iter().map(|row| dot(row, row)).sum::<f64>().sqrt()
}

fn map(rows: &Rows, f: impl Fn(f64) -> f64) -> Rows {
    rows.iter().map(|row| row.iter().map(|&v| f(v)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// Every case times every row of weights.
fn products(x: &Rows, w: &Rows) -> Rows {
    x.iter().map(|x| w.iter().map(|w| dot(w, x)).collect()).collect()
}

fn turned(rows: &Rows) -> Rows {
    (0..rows[0].len()).map(|k| rows.iter().map(|row| row[k]).collect()).collect()
}

fn mean(a: &[f64]) -> f64 {
    a.iter().sum::<f64>() / a.len() as f64
}

fn deviation(a: &[f64], centred: bool) -> f64 {
    let m = if centred { mean(a) } else { 0.0 };
    (a.iter().map(|a| (a - m).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// (a - mean)/deviation; not centred, a over its root mean square.
fn normalised(a: &[f64], centred: bool) -> Vec<f64> {
    let (m, s) = (if centred { mean(a) } else { 0.0 }, deviation(a, centred));
    a.iter().map(|a| (a - m) / s).collect()
}

/// Its derivative along a direction d of a: (d - mean(d) - z mean(z d))/s, without the mean if not centred.
fn normalised_along(a: &[f64], d: &[f64], centred: bool) -> Vec<f64> {
    let (z, s) = (normalised(a, centred), deviation(a, centred));
    let m = if centred { mean(d) } else { 0.0 };
    let share = dot(&z, d) / z.len() as f64;
    z.iter().zip(d).map(|(z, d)| (d - m - z * share) / s).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    const METHODS: [Method; 5] = [Method::None, Method::Layer, Method::Rms, Method::Batch, Method::Weight];

    fn model(method: Method, family: Family) -> (Model, Rows) {
        let mut rng = Rng::new(11, Purpose::Study("geometry"), 0);
        let model = Model::new(method, family, &mut rng);
        let d = (0..OUTPUTS).map(|_| (0..INPUTS).map(|_| f64::from(rng.bell())).collect()).collect();
        (model, d)
    }

    #[test]
    fn derivatives_are_those_of_differences() {
        const H: f64 = 1e-5;
        for method in METHODS {
            let (model, d) = model(method, Family::Bernoulli);
            let (plus, minus) = (model.moved(&d, H).z(), model.moved(&d, -H).z());
            for ((plus, minus), along) in plus.iter().zip(&minus).zip(&model.z_along(&d)) {
                for ((plus, minus), along) in plus.iter().zip(minus).zip(along) {
                    let difference = (plus - minus) / (2.0 * H);
                    assert!((difference - along).abs() < 1e-7 * (1.0 + along.abs()), "{method:?}");
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        const H: f64 = 1e-5;
        // With cross-entropy, the loss differs from the divergence from the observations by nothing: H(seen) is 0.
        let loss = |model: &Model| -> f64 {
            let softplus = |v: f64| v.max(0.0) + (-v.abs()).exp().ln_1p();
            let case = |(eta, seen): (&Vec<f64>, &Vec<f64>)| -> f64 {
                eta.iter().zip(seen).map(|(eta, seen)| softplus(*eta) - seen * eta).sum()
            };
            model.eta().iter().zip(&model.observed).map(case).sum::<f64>() / CASES as f64
        };
        for method in METHODS {
            let (model, d) = model(method, Family::Bernoulli);
            let difference = (loss(&model.moved(&d, H)) - loss(&model.moved(&d, -H))) / (2.0 * H);
            let along: f64 = model.gradient().iter().zip(&d).map(|(g, d)| dot(g, d)).sum();
            assert!((difference - along).abs() < 1e-8 * (1.0 + along.abs()), "{method:?}");
        }
    }

    #[test]
    fn the_metric_is_the_jacobian_that_is_written_above() {
        let (model, d) = model(Method::Layer, Family::Gaussian);
        let (a, z, h) = (products(&model.x, &model.w), model.z(), OUTPUTS as f64);
        let mut by_hand = 0.0;
        for n in 0..CASES {
            for k in 0..OUTPUTS {
                let along: f64 = (0..OUTPUTS)
                    .map(|i| {
                        let delta = if i == k { 1.0 } else { 0.0 };
                        (delta - 1.0 / h - z[n][k] * z[n][i] / h) * dot(&d[i], &model.x[n])
                    })
                    .sum();
                by_hand += (model.gain[k] / deviation(&a[n], true) * along).powi(2) / CASES as f64;
            }
        }
        assert!((by_hand / model.metric(&d, false) - 1.0).abs() < 1e-12);
        assert!(
            (by_hand / model.metric(&d, true) - 1.0).abs() > 1e-3,
            "own derivatives alone are another thing"
        );
    }

    #[test]
    fn a_gaussian_divergence_without_norm_is_its_metric() {
        let (model, d) = model(Method::None, Family::Gaussian);
        let moved = model.moved(&d, 0.1);
        let half = model.metric(&d, false) * 0.01 / 2.0;
        assert!((model.divergence(&moved) / half - 1.0).abs() < 1e-12);
    }
}
