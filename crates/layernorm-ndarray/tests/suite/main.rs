//! One binary; a file for each promise.

mod all_at_once;
mod allocations;
mod errors;
mod layouts;
mod properties;
mod threads;
mod tiles;

use half::{bf16, f16};
use layernorm::{Companion, Element, Rows, RowsMut, Run, Stats, Threads, Workspace};
use layernorm_ndarray::{Error, Gradients, Norm, ParamGradients};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

/// Numbers of a test: made from f64, compared by bits.
trait Number: Element {
    fn new(value: f64) -> Self;
    fn to_f64(self) -> f64;
    /// Every NaN the same.
    fn bits(self) -> u64 {
        let value = Number::to_f64(self);
        if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
    }
}

macro_rules! number {
    ($($t:ty, $new:expr);*) => {$(impl Number for $t {
        #[allow(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
        fn new(value: f64) -> Self {
            $new(value)
        }
        fn to_f64(self) -> f64 {
            self.into()
        }
    })*};
}
number!(f32, |x| x as f32; f64, |x| x; f16, f16::from_f64; bf16, bf16::from_f64);

/// Numbers in -1..1 that depend on `seed` alone (splitmix64).
fn numbers<E: Number>(len: usize, seed: u64) -> Vec<E> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..len).map(|_| E::new((next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0)).collect()
}

fn array<E: Number>(shape: &[usize], seed: u64) -> ArrayD<E> {
    let len = shape.iter().product();
    ArrayD::from_shape_vec(IxDyn(shape), numbers(len, seed)).expect("as many numbers")
}

/// What no test computes.
const SENTINEL: f64 = -77.0;

/// How the axes of an array lie in memory: in which order, and of which steps.
#[derive(Debug, Clone)]
struct Lie {
    order: Vec<usize>,
    steps: Vec<isize>,
}

impl Lie {
    fn c(axes: usize) -> Self {
        Self { order: (0..axes).collect(), steps: vec![1; axes] }
    }

    fn fortran(axes: usize) -> Self {
        Self { order: (0..axes).rev().collect(), ..Self::c(axes) }
    }

    fn steps(steps: &[isize]) -> Self {
        Self { steps: steps.to_vec(), ..Self::c(steps.len()) }
    }

    fn order(order: &[usize]) -> Self {
        Self { order: order.to_vec(), ..Self::c(order.len()) }
    }
}

/// An array that lies so in the memory of a larger one, between sentinels.
struct Laid<E> {
    memory: ArrayD<E>,
    shape: Vec<usize>,
    lie: Lie,
}

impl<E: Number> Laid<E> {
    fn new(content: &ArrayD<E>, lie: &Lie) -> Self {
        let shape = content.shape().to_vec();
        let room: Vec<usize> =
            lie.order.iter().map(|&axis| shape[axis] * lie.steps[axis].unsigned_abs() + 1).collect();
        let mut laid = Self { memory: ArrayD::from_elem(room, E::new(SENTINEL)), shape, lie: lie.clone() };
        laid.view_mut().assign(content);
        laid
    }

    fn sentinels(shape: &[usize], lie: &Lie) -> Self {
        Self::new(&ArrayD::from_elem(shape, E::new(SENTINEL)), lie)
    }

    fn slice(&self, axis: usize) -> Slice {
        let (len, step) = (self.shape[axis] as isize, self.lie.steps[axis]);
        Slice::new(0, Some(len * step.abs()), step)
    }

    /// The place of each axis in memory.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.shape.len()];
        self.lie.order.iter().enumerate().for_each(|(place, &axis)| places[axis] = place);
        places
    }

    fn view(&self) -> ArrayViewD<'_, E> {
        let mut view = self.memory.view().permuted_axes(self.places());
        (0..self.shape.len()).for_each(|axis| view.slice_axis_inplace(Axis(axis), self.slice(axis)));
        view
    }

    fn view_mut(&mut self) -> ArrayViewMutD<'_, E> {
        let (places, slices) = (self.places(), Vec::from_iter((0..self.shape.len()).map(|a| self.slice(a))));
        let mut view = self.memory.view_mut().permuted_axes(places);
        slices.into_iter().enumerate().for_each(|(axis, slice)| view.slice_axis_inplace(Axis(axis), slice));
        view
    }

    /// Nothing outside the view was written.
    #[track_caller]
    fn assert_untouched_around(mut self) {
        let sentinel = E::new(SENTINEL);
        self.view_mut().fill(sentinel);
        assert!(self.memory.iter().all(|number| number.bits() == sentinel.bits()), "outside the view");
    }
}

/// The rows of an array over these axes, side by side in logical order.
fn rows<E: Copy>(of: &ArrayViewD<'_, E>, axes: &[Axis]) -> Vec<E> {
    let is_feature = |axis: &usize| axes.contains(&Axis(*axis));
    let (features, mut order): (Vec<_>, Vec<_>) = (0..of.ndim()).partition(is_feature);
    order.extend(features);
    of.view().permuted_axes(order).iter().copied().collect()
}

#[track_caller]
fn assert_bits<E: Number>(got: &[E], expected: &[E], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.bits(), expected.bits(), "{what}: {got:?} where {expected:?} is expected, at {index}");
    }
}

/// The two norms, as a value to loop over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Layer,
    Rms,
}

const KINDS: [Kind; 2] = [Kind::Layer, Kind::Rms];

/// A case: what to normalise, and how everything lies.
#[derive(Debug, Clone)]
struct Case {
    shape: Vec<usize>,
    axes: Vec<Axis>,
    /// Of x, y, dy, dx.
    lies: [Lie; 4],
    /// A parameter: none, shared, or one a feature.
    weight: Option<bool>,
    bias: Option<bool>,
    first_row: usize,
    accumulate: bool,
}

impl Case {
    fn new(shape: &[usize], axes: &[usize], lies: [Lie; 4]) -> Self {
        let axes = axes.iter().copied().map(Axis).collect();
        let (weight, bias) = (Some(true), Some(true));
        Self { shape: shape.to_vec(), axes, lies, weight, bias, first_row: 0, accumulate: false }
    }

    fn features(&self) -> usize {
        self.axes.iter().map(|axis| self.shape[axis.index()]).product()
    }

    /// All functions of a norm on these arrays have the bits of the slice kernels on their rows.
    fn check<E: Number, P: Number + Companion<E>>(&self, run: Run)
    where
        E::Acc: Number,
    {
        for kind in KINDS {
            self.check_kind::<E, P>(kind, run);
        }
    }

    fn check_kind<E: Number, P: Number + Companion<E>>(&self, kind: Kind, run: Run)
    where
        E::Acc: Number,
    {
        let n = self.features();
        let [x, dy] = [1, 2].map(|seed| array::<E>(&self.shape, seed));
        let [lie_x, lie_y, lie_dy, lie_dx] = &self.lies;
        let (laid_x, laid_dy) = (Laid::new(&x, lie_x), Laid::new(&dy, lie_dy));
        let (mut y, mut dx) =
            (Laid::<E>::sentinels(&self.shape, lie_y), Laid::<E>::sentinels(&self.shape, lie_dx));
        let param = |is: Option<bool>, seed| is.map(|whole| numbers::<P>(if whole { n } else { 1 }, seed));
        let (weight, bias) = (param(self.weight, 3), param(self.bias, 4));

        // The kernels on slices.
        let (x_rows, dy_rows) = (rows(&x.view(), &self.axes), rows(&dy.view(), &self.axes));
        let count = x_rows.len().checked_div(n).unwrap_or_else(|| {
            let row_axes = (0..self.shape.len()).filter(|axis| !self.axes.contains(&Axis(*axis)));
            row_axes.map(|axis| self.shape[axis]).product()
        });
        let params = layernorm::Params { weight: weight.as_deref(), bias: bias.as_deref(), eps: 1e-5 };
        let (mut y_rows, mut dx_rows) = (x_rows.clone(), x_rows.clone());
        let as_rows = |data| Rows::<E>::strided(data, count, n, n).expect("rows");
        let mut stats = Stats::<E::Acc>::new(count);
        let target = RowsMut::strided(&mut y_rows, count, n, n).expect("rows");
        match kind {
            Kind::Layer => layernorm::layer_norm(as_rows(&x_rows), params, target, Some(stats.as_mut()), run),
            Kind::Rms => layernorm::rms_norm(as_rows(&x_rows), params, target, Some(&mut stats.rstd), run),
        }
        .expect("forward");
        let sizes = [self.weight, self.bias].map(|is| if is == Some(false) { 1 } else { n });
        let before = sizes.map(|size| numbers::<E::Acc>(size, 5));
        let mut sums = before.clone();
        let mut workspace = Workspace::new();
        let [dweight, dbias] = &mut sums;
        let gradients = layernorm::Gradients {
            dx: Some(RowsMut::strided(&mut dx_rows, count, n, n).expect("rows")),
            params: Some(layernorm::ParamGradients {
                dweight: Some(dweight),
                dbias: Some(dbias),
                accumulate: self.accumulate,
                first_row: self.first_row,
                workspace: &mut workspace,
            }),
        };
        let (xs, dys) = (as_rows(&x_rows), as_rows(&dy_rows));
        match kind {
            Kind::Layer => layernorm::layer_norm_backward(xs, dys, params, None, gradients, run),
            Kind::Rms => layernorm::rms_norm_backward(xs, dys, params, None, gradients, run),
        }
        .expect("backward");

        // Forward, and in place.
        let norm = || {
            let mut norm = Norm::<P>::over(&self.axes[..]);
            norm.weight = weight
                .as_deref()
                .map(|weight| ArrayViewD::from_shape(vec![weight.len()], weight).expect("1-D"));
            norm.bias =
                bias.as_deref().map(|bias| ArrayViewD::from_shape(vec![bias.len()], bias).expect("1-D"));
            norm
        };
        let what = |function: &str| format!("{kind:?} {function} of {self:?}");
        let mut saved = Stats::<E::Acc>::new(count);
        kind.forward(laid_x.view(), norm(), y.view_mut(), &mut saved, run).expect("forward");
        assert_bits(&rows(&y.view(), &self.axes), &y_rows, &what("forward"));
        assert_bits(&saved.rstd, &stats.rstd, &what("rstd"));
        assert_bits(&saved.m, &stats.m, &what("m"));
        assert_bits(&saved.c, &stats.c, &what("c"));
        let mut both = Laid::new(&x, lie_y);
        kind.in_place(both.view_mut(), norm(), run).expect("in place");
        assert_bits(&rows(&both.view(), &self.axes), &y_rows, &what("in place"));
        let new = kind.array(laid_x.view(), norm(), run).expect("an array");
        assert_bits(&rows(&new.view(), &self.axes), &y_rows, &what("a new array"));

        // Backward: with statistics and all gradients, in place, and dx alone.
        let saved = Some(&saved).filter(|_| self.first_row.is_multiple_of(2));
        let mut got = before.clone();
        kind.backward(
            [laid_x.view(), laid_dy.view()],
            norm(),
            saved,
            (Some(dx.view_mut()), self.sums(&mut got, &mut workspace)),
            run,
        )
        .expect("backward");
        assert_bits(&rows(&dx.view(), &self.axes), &dx_rows, &what("dx"));
        assert_bits(&got[0], &sums[0], &what("dweight"));
        assert_bits(&got[1], &sums[1], &what("dbias"));
        let (mut got, mut both) = (before.clone(), Laid::new(&dy, lie_dx));
        let to = self.sums(&mut got, &mut workspace);
        kind.backward_in_place((laid_x.view(), both.view_mut()), norm(), saved, to, run).expect("in place");
        assert_bits(&rows(&both.view(), &self.axes), &dx_rows, &what("dx in place"));
        assert_bits(&got[0], &sums[0], &what("dweight in place"));
        let mut alone = Laid::<E>::sentinels(&self.shape, lie_dx);
        let only = (Some(alone.view_mut()), None);
        kind.backward([laid_x.view(), laid_dy.view()], norm(), None, only, run).expect("dx alone");
        assert_bits(&rows(&alone.view(), &self.axes), &dx_rows, &what("dx alone"));
        let mut got = before.clone();
        let to = self.sums(&mut got, &mut workspace);
        kind.backward([laid_x.view(), laid_dy.view()], norm(), saved, (None, to), run).expect("sums alone");
        assert_bits(&got[0], &sums[0], &what("dweight alone"));
        [y, both, dx, alone].into_iter().for_each(Laid::assert_untouched_around);
    }

    /// Where dweight and dbias go.
    fn sums<'a, A: Number + layernorm::Real>(
        &self,
        of: &'a mut [Vec<A>; 2],
        workspace: &'a mut Workspace<A>,
    ) -> Option<ParamGradients<'a, A>> {
        let [dweight, dbias] = of;
        let view = |numbers: &'a mut Vec<A>| {
            ArrayViewMutD::from_shape(IxDyn(&[numbers.len()]), numbers).expect("1-D")
        };
        let (accumulate, first_row) = (self.accumulate, self.first_row);
        let (dweight, dbias) = (Some(view(dweight)), Some(view(dbias)));
        Some(ParamGradients { dweight, dbias, accumulate, first_row, workspace })
    }
}

impl Kind {
    fn forward<E: Element, P: Companion<E>>(
        self,
        x: ArrayViewD<'_, E>,
        norm: Norm<'_, P>,
        y: ArrayViewMutD<'_, E>,
        saved: &mut Stats<E::Acc>,
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Layer => layernorm_ndarray::layer_norm(x, norm, y, Some(saved.as_mut()), run),
            Self::Rms => layernorm_ndarray::rms_norm(x, norm, y, Some(&mut saved.rstd), run),
        }
    }

    fn in_place<E: Element, P: Companion<E>>(
        self,
        x: ArrayViewMutD<'_, E>,
        norm: Norm<'_, P>,
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Layer => layernorm_ndarray::layer_norm_in_place(x, norm, None, run),
            Self::Rms => layernorm_ndarray::rms_norm_in_place(x, norm, None, run),
        }
    }

    fn array<E: Element, P: Companion<E>>(
        self,
        x: ArrayViewD<'_, E>,
        norm: Norm<'_, P>,
        run: Run,
    ) -> Result<ArrayD<E>, Error> {
        match self {
            Self::Layer => layernorm_ndarray::layer_norm_array(x, norm, run),
            Self::Rms => layernorm_ndarray::rms_norm_array(x, norm, run),
        }
    }

    fn backward<'a, E: Element, P: Companion<E>>(
        self,
        [x, dy]: [ArrayViewD<'_, E>; 2],
        norm: Norm<'_, P>,
        saved: Option<&Stats<E::Acc>>,
        (dx, params): (Option<ArrayViewMutD<'a, E>>, Option<ParamGradients<'a, E::Acc>>),
        run: Run,
    ) -> Result<(), Error> {
        let gradients = Gradients { dx, params };
        match self {
            Self::Layer => {
                let saved = saved.map(Stats::as_ref);
                layernorm_ndarray::layer_norm_backward(x, dy, norm, saved, gradients, run)
            }
            Self::Rms => {
                let rstd = saved.map(|saved| &saved.rstd[..]);
                layernorm_ndarray::rms_norm_backward(x, dy, norm, rstd, gradients, run)
            }
        }
    }

    fn backward_in_place<E: Element, P: Companion<E>>(
        self,
        (x, dy): (ArrayViewD<'_, E>, ArrayViewMutD<'_, E>),
        norm: Norm<'_, P>,
        saved: Option<&Stats<E::Acc>>,
        params: Option<ParamGradients<'_, E::Acc>>,
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Layer => {
                let saved = saved.map(Stats::as_ref);
                layernorm_ndarray::layer_norm_backward_in_place(x, dy, norm, saved, params, run)
            }
            Self::Rms => {
                let rstd = saved.map(|saved| &saved.rstd[..]);
                layernorm_ndarray::rms_norm_backward_in_place(x, dy, norm, rstd, params, run)
            }
        }
    }
}

fn one_thread() -> Run {
    Run::default().with_threads(Threads::One)
}
