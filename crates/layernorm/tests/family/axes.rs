//! Layer norm and RMS norm over any axes, with parameters along any, and with masks.

use crate::tools::{Number, Random, SENTINEL, assert_same, levels};
use half::bf16;
use layernorm::reference::{Affine, layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use layernorm::{
    Activation, AxesMask, Error, Gradients, Groups, Images, Layout, OverAxes, ParamGradients, Params, Rows,
    RowsMut, Run, Stats, TensorGradients, Workspace, group_norm, group_norm_backward, layer_norm_axes,
    layer_norm_axes_backward, layer_norm_axes_backward_in_place, layer_norm_axes_in_place, rms_norm_axes,
    rms_norm_axes_backward, rms_norm_axes_backward_in_place, rms_norm_axes_in_place,
};

#[derive(Clone)]
pub(crate) struct Case<T> {
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Option<Vec<usize>>,
    pub(crate) over: Vec<usize>,
    pub(crate) affine: Vec<usize>,
    /// As long as the tensor, with holes where there are strides.
    pub(crate) x: Vec<T>,
    pub(crate) dy: Vec<T>,
    pub(crate) weight: Vec<T>,
    pub(crate) bias: Vec<T>,
    /// A mask over all axes,
    pub(crate) mask: Option<Vec<bool>>,
    /// but along these the same: it is read where they are at 0.
    pub(crate) lacks: Vec<usize>,
    pub(crate) rms: bool,
    pub(crate) eps: f64,
}

#[derive(Clone)]
pub(crate) struct Results<T: Number> {
    pub(crate) y: Vec<T>,
    pub(crate) stats: Stats<T::Acc>,
    pub(crate) dx: Vec<T>,
    pub(crate) dweight: Vec<T::Acc>,
    pub(crate) dbias: Vec<T::Acc>,
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

impl<T: Number> Case<T>
where
    T::Acc: Number,
{
    pub(crate) fn new(shape: &[usize], over: &[usize], affine: &[usize], seed: u64) -> Self {
        Self::strided(shape, None, over, affine, seed)
    }

    fn strided(
        shape: &[usize],
        strides: Option<&[usize]>,
        over: &[usize],
        affine: &[usize],
        seed: u64,
    ) -> Self {
        let mut random = Random(seed);
        let mut case = Self {
            shape: shape.to_vec(),
            strides: strides.map(<[usize]>::to_vec),
            over: over.to_vec(),
            affine: affine.to_vec(),
            x: vec![],
            dy: vec![],
            weight: vec![],
            bias: vec![],
            mask: None,
            lacks: vec![],
            rms: false,
            eps: 1e-5,
        };
        let reach: usize = shape.iter().zip(case.steps()).map(|(size, step)| (size.max(&1) - 1) * step).sum();
        let len = if shape.contains(&0) { 0 } else { reach + 1 };
        let params = affine.iter().map(|axis| shape[*axis]).product();
        case.x = random.numbers(len, 3.0, 2.0);
        case.dy = random.numbers(len, 0.3, 1.0);
        case.weight = random.numbers(params, 1.0, 0.5);
        case.bias = random.numbers(params, 0.0, 1.0);
        case
    }

    fn masked(mut self) -> Self {
        let mut random = Random(99);
        self.mask =
            Some((0..self.shape.iter().product()).map(|_| !random.bits().is_multiple_of(3)).collect());
        self
    }

    fn steps(&self) -> Vec<usize> {
        self.strides.clone().unwrap_or_else(|| row_major(&self.shape))
    }

    fn mask_steps(&self) -> Vec<usize> {
        let steps = row_major(&self.shape).into_iter().enumerate();
        steps.map(|(axis, step)| if self.lacks.contains(&axis) { 0 } else { step }).collect()
    }

    pub(crate) fn rows(&self) -> usize {
        (0..self.shape.len()).filter(|axis| !self.over.contains(axis)).map(|axis| self.shape[axis]).product()
    }

    pub(crate) fn run(&self, in_place: bool, saved: bool, run: Run) -> Results<T> {
        let mask_strides = self.mask_steps();
        let norm = OverAxes {
            shape: &self.shape,
            strides: self.strides.as_deref(),
            over: &self.over,
            affine: &self.affine,
            params: Params { weight: Some(&self.weight[..]), bias: Some(&self.bias), eps: self.eps },
            mask: self.mask.as_ref().map(|valid| AxesMask { valid, strides: &mask_strides }),
        };
        let mut workspace = Workspace::new();
        let mut stats = Stats::new(self.rows());
        let (x, dy) = (&self.x, &self.dy);
        let mut y = if in_place { x.clone() } else { vec![T::of(SENTINEL); x.len()] };
        match (self.rms, in_place) {
            (false, false) => layer_norm_axes(norm, x, &mut y, Some(stats.as_mut()), &mut workspace, run),
            (false, true) => {
                layer_norm_axes_in_place(norm, &mut y, Some(stats.as_mut()), &mut workspace, run)
            }
            (true, false) => rms_norm_axes(norm, x, &mut y, Some(&mut stats.rstd), &mut workspace, run),
            (true, true) => rms_norm_axes_in_place(norm, &mut y, Some(&mut stats.rstd), &mut workspace, run),
        }
        .unwrap();
        let [mut dweight, mut dbias] = [(); 2].map(|()| vec![T::Acc::of(SENTINEL); self.weight.len()]);
        let mut dx = if in_place { dy.clone() } else { vec![T::of(SENTINEL); x.len()] };
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            accumulate: false,
            first_row: 0,
            workspace: &mut workspace,
        };
        let (of, rstd) = (saved.then(|| stats.as_ref()), saved.then_some(&stats.rstd[..]));
        match (self.rms, in_place) {
            (false, true) => layer_norm_axes_backward_in_place(norm, x, &mut dx, of, params, run),
            (true, true) => rms_norm_axes_backward_in_place(norm, x, &mut dx, rstd, params, run),
            (rms, _) => {
                let wanted = TensorGradients { dx: Some(&mut dx), params };
                if rms {
                    rms_norm_axes_backward(norm, x, dy, rstd, wanted, run)
                } else {
                    layer_norm_axes_backward(norm, x, dy, of, wanted, run)
                }
            }
        }
        .unwrap();
        Results { y, stats, dx, dweight, dbias }
    }

    /// For each row the places of its numbers in memory, in a mask, and of its parameters: features in the order of the
    /// axes that have parameters, then of the others.
    pub(crate) fn places(&self) -> Vec<Vec<[usize; 3]>> {
        let steps = [self.steps(), self.mask_steps(), self.of_params()];
        let is_over = |axis: &usize| self.over.contains(axis);
        let (first, last): (Vec<usize>, Vec<usize>) =
            (0..self.shape.len()).filter(is_over).partition(|axis| self.affine.contains(axis));
        let inner: Vec<usize> = first.into_iter().chain(last).collect();
        let outer: Vec<usize> = (0..self.shape.len()).filter(|axis| !is_over(axis)).collect();
        let walk = |axes: &[usize]| {
            axes.iter().fold(vec![[0; 3]], |places, axis| {
                let along = |place: &[usize; 3]| {
                    let place = *place;
                    let steps = &steps;
                    (0..self.shape[*axis]).map(move |i| [0, 1, 2].map(|k| place[k] + i * steps[k][*axis]))
                };
                places.iter().flat_map(along).collect()
            })
        };
        let inner = walk(&inner);
        walk(&outer).iter().map(|o| inner.iter().map(|i| [0, 1, 2].map(|k| o[k] + i[k])).collect()).collect()
    }

    /// How far apart parameters along each axis are: 0 along those that have none.
    fn of_params(&self) -> Vec<usize> {
        let has = |axis: usize| self.affine.contains(&axis);
        let after = |axis: usize| (axis + 1..self.shape.len()).filter(|axis| has(*axis));
        (0..self.shape.len())
            .map(|axis| if has(axis) { after(axis).map(|axis| self.shape[axis]).product() } else { 0 })
            .collect()
    }
}

#[track_caller]
pub(crate) fn assert_all_same<T: Number>(left: &Results<T>, right: &Results<T>, what: &str)
where
    T::Acc: Number,
{
    assert_same(&left.y, &right.y, &format!("{what}: y"));
    assert_same(&left.stats.m, &right.stats.m, &format!("{what}: m"));
    assert_same(&left.stats.c, &right.stats.c, &format!("{what}: c"));
    assert_same(&left.stats.rstd, &right.stats.rstd, &format!("{what}: rstd"));
    assert_same(&left.dx, &right.dx, &format!("{what}: dx"));
    assert_same(&left.dweight, &right.dweight, &format!("{what}: dweight"));
    assert_same(&left.dbias, &right.dbias, &format!("{what}: dbias"));
}

/// Shapes, axes of statistics, axes of parameters.
pub(crate) type Setting = (&'static [usize], &'static [usize], &'static [usize]);

const SETTINGS: [Setting; 21] = [
    (&[5, 7], &[1], &[1]),
    (&[5, 7], &[0], &[0]),
    (&[5, 7], &[0], &[1]),
    (&[5, 7], &[1], &[0, 1]),
    (&[5, 7], &[0, 1], &[]),
    (&[5, 7], &[], &[1]),
    (&[3, 40, 5, 6], &[1], &[1]),
    (&[3, 8, 5, 6], &[2, 3], &[1]),
    (&[3, 8, 5, 6], &[1, 2, 3], &[1]),
    (&[3, 5, 6, 8], &[1, 2, 3], &[3]),
    (&[3, 5, 6, 8], &[1, 2], &[3]),
    (&[3, 5, 6, 8], &[3, 1], &[3]),
    (&[3, 5, 6, 8], &[1, 3], &[3, 1]),
    (&[3, 5, 6, 8], &[1, 3], &[0, 3]),
    (&[3, 5, 6, 8], &[2], &[1, 2]),
    (&[3, 1, 6, 1], &[1, 2], &[2]),
    (&[70, 33], &[0], &[0]),
    (&[2, 300, 20], &[1], &[1]),
    (&[600, 70], &[0], &[0]),
    (&[3000, 4], &[1], &[1]),
    (&[2, 0, 3], &[1], &[1]),
];

/// Settings that take each way; under Miri, small ones.
pub(crate) fn settings() -> Vec<Setting> {
    if cfg!(miri) {
        return vec![(&[2, 3], &[1], &[1]), (&[3, 2], &[0], &[1]), (&[2, 2, 3], &[1, 2], &[0, 1])];
    }
    SETTINGS.to_vec()
}

/// Rows of one setting, one by one, through the reference.
fn against_reference<T: Number>(case: &Case<T>)
where
    T::Acc: Number,
{
    let what = format!("{:?} over {:?} by {:?}, rms {}", case.shape, case.over, case.affine, case.rms);
    let got = case.run(false, true, Run::default());
    let narrow = if <T::Acc as Number>::U == T::U { 0.0 } else { T::U };
    // The oracle of f64 is itself in f64, and adds up in order.
    let u = <T::Acc as Number>::U * if narrow == 0.0 && T::U < 1e-12 { 10.0 } else { 1.0 };
    let eps = T::Acc::of(case.eps).wide();
    let mut sums = vec![[0.0f64; 4]; case.weight.len()];
    for (row, places) in case.places().iter().enumerate() {
        let n = places.len();
        if n == 0 {
            continue;
        }
        let of =
            |values: &[T], k: usize| places.iter().map(|place| values[place[k]].wide()).collect::<Vec<_>>();
        let (x, dy) = (of(&case.x, 0), of(&case.dy, 0));
        let (w, b) = (of(&case.weight, 2), of(&case.bias, 2));
        let affine = Affine::new(&w, &b);
        let (plain, out, back) = if case.rms {
            let of = |affine| rms_norm(&x, n, affine, eps);
            (of(Affine::NONE), of(affine), rms_norm_backward(&dy, &x, n, affine, eps))
        } else {
            let of = |affine| layer_norm(&x, n, affine, eps);
            (of(Affine::NONE), of(affine), layer_norm_backward(&dy, &x, n, affine, eps))
        };
        let error = (got.stats.rstd[row].wide() - out.rstd[0]).abs();
        assert!(error <= 8.0 * u * out.rstd[0], "{what}: rstd");
        let most = w.iter().zip(&dy).map(|(w, dy)| (w * dy).abs()).fold(0.0, f64::max);
        for (j, place) in places.iter().enumerate() {
            let x_hat = plain.y[j].abs().max(1.0);
            let error = (got.y[place[0]].wide() - out.y[j]).abs();
            let bound = 8.0 * u * w[j].abs() * x_hat + (u + narrow) * out.y[j].abs();
            assert!(error <= bound, "{what}: y[{j}] of row {row}: {error:e} {bound:e}");
            let error = (got.dx[place[0]].wide() - back.dx[j]).abs();
            let bound = 16.0 * u * out.rstd[0] * most * x_hat + narrow * back.dx[j].abs() + 1e-4 * narrow;
            assert!(error <= bound, "{what}: dx[{j}] of row {row}: {error:e} {bound:e}");
            let [dw, db, s, t] = &mut sums[place[2]];
            *dw += dy[j] * plain.y[j];
            *db += dy[j];
            *s += dy[j].abs() * x_hat;
            *t += dy[j].abs();
        }
    }
    for (i, [dw, db, s, t]) in sums.into_iter().enumerate() {
        let factor = 16.0 + (case.x.len() as f64).log2();
        let [of_weight, of_bias] = [(got.dweight[i].wide() - dw).abs(), (got.dbias[i].wide() - db).abs()];
        assert!(of_weight <= (factor + 8.0) * u * s, "{what}: dweight[{i}]: {of_weight:e}");
        assert!(of_bias <= factor * u * t, "{what}: dbias[{i}]: {of_bias:e}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers")]
fn it_is_the_reference_within_the_bounds() {
    for (seed, (shape, over, affine)) in SETTINGS.into_iter().enumerate() {
        for rms in [false, true] {
            against_reference(&Case::<f32> { rms, ..Case::new(shape, over, affine, seed as u64) });
            against_reference(&Case::<f64> { rms, ..Case::new(shape, over, affine, seed as u64) });
            against_reference(&Case::<bf16> { rms, ..Case::new(shape, over, affine, seed as u64) });
        }
    }
}

pub(crate) fn the_same_bits<T: Number>(case: &Case<T>, what: &str)
where
    T::Acc: Number,
{
    let first = case.run(false, true, Run::default());
    let saved = case.run(false, false, Run::default());
    assert_all_same(&first, &saved, &format!("{what}, not saved"));
    for level in levels() {
        let run = Run::default().with_level(level);
        assert_all_same(&first, &case.run(false, true, run), &format!("{what} {level}"));
    }
    let mut in_place = case.run(true, true, Run::default());
    // Holes keep what was there: x and dy, not the sentinel.
    let mut holes = vec![true; case.x.len()];
    case.places().iter().flatten().for_each(|place| holes[place[0]] = false);
    for i in (0..holes.len()).filter(|i| holes[*i]) {
        assert!(
            in_place.y[i].bits() == case.x[i].bits() && in_place.dx[i].bits() == case.dy[i].bits(),
            "{what}: holes"
        );
        assert!(first.y[i].wide() == SENTINEL && first.dx[i].wide() == SENTINEL, "{what}: holes");
        (in_place.y[i], in_place.dx[i]) = (first.y[i], first.dx[i]);
    }
    assert_all_same(&first, &in_place, &format!("{what} in place"));
}

#[test]
fn levels_places_and_saved_statistics_give_the_same_bits() {
    for (shape, over, affine) in settings() {
        for rms in [false, true] {
            for masked in [false, true] {
                let case = Case::<f32> { rms, ..Case::new(shape, over, affine, 1) };
                let case = if masked { case.masked() } else { case };
                the_same_bits(&case, &format!("{shape:?} {over:?} {affine:?} rms {rms}, masked {masked}"));
            }
        }
        the_same_bits(&Case::<bf16>::new(shape, over, affine, 1).masked(), "bf16");
        the_same_bits(&Case::<bf16>::new(shape, over, affine, 1), "bf16");
    }
}

/// Whichever axis has no numbers, and however they would lie.
#[test]
fn of_no_numbers_nothing_comes() {
    for empty in 0..3 {
        let mut shape = [2, 3, 4];
        shape[empty] = 0;
        for strides in [[12, 4, 1], [1, 2, 6], [4, 8, 1], [3, 1, 6], [8, 1, 20]] {
            for (over, affine) in
                [(&[0][..], &[0][..]), (&[1], &[1]), (&[2], &[2]), (&[1, 2], &[1]), (&[0, 2], &[2])]
            {
                let case = Case::<f32>::strided(&shape, Some(&strides), over, affine, 4);
                for case in [case.clone(), case.masked()] {
                    let got = case.run(false, true, Run::default());
                    assert!(got.y.is_empty() && got.dx.is_empty());
                    assert!(got.dweight.iter().chain(&got.dbias).all(|sum| *sum == 0.0), "{shape:?}");
                }
            }
        }
    }
}

/// Bit for bit: wherever the numbers lie.
#[test]
fn strides_do_not_show() {
    let shape = [3, 20, 6];
    for (over, affine) in [(&[1][..], &[1][..]), (&[2], &[2]), (&[0, 2], &[2]), (&[1], &[2]), (&[1, 2], &[1])]
    {
        let plain = Case::<f32>::new(&shape, over, affine, 4);
        let expected = plain.run(false, true, Run::default());
        let to_plain = row_major(&shape);
        for strides in
            [[120, 6, 1], [130, 6, 1], [1, 3, 60], [20, 1, 60], [240, 12, 2], [7, 21, 500], [1, 18, 3]]
        {
            let mut case = Case::<f32>::strided(&shape, Some(&strides), over, affine, 4);
            (case.weight, case.bias) = (plain.weight.clone(), plain.bias.clone());
            if cfg!(miri) && strides != [7, 21, 500] {
                continue;
            }
            let places: Vec<[usize; 2]> = (0..360)
                .map(|i| {
                    let index = [i / 120, i / 6 % 20, i % 6];
                    [&to_plain[..], &strides].map(|of| (0..3).map(|axis| index[axis] * of[axis]).sum())
                })
                .collect();
            for [from, to] in &places {
                (case.x[*to], case.dy[*to]) = (plain.x[*from], plain.dy[*from]);
            }
            the_same_bits(&case, &format!("{strides:?}"));
            let mut got = case.run(false, true, Run::default());
            got.y = places.iter().map(|[_, to]| got.y[*to]).collect();
            got.dx = places.iter().map(|[_, to]| got.dx[*to]).collect();
            assert_all_same(&got, &expected, &format!("{strides:?} over {over:?}"));
        }
    }
}

/// Bit for bit: trailing axes are the plain functions.
#[test]
fn trailing_axes_are_layer_norm() {
    for (rows, n) in
        [(1, 1), (5, 7), (20, 300), (0, 4), (9, 1000)].into_iter().take(if cfg!(miri) { 2 } else { 5 })
    {
        let case = Case::<f32>::new(&[rows, n], &[1], &[1], 2);
        let got = case.run(false, true, Run::default());
        let params = Params { weight: Some(&case.weight[..]), bias: Some(&case.bias), eps: case.eps };
        let (mut y, mut dx, mut stats) = (case.x.clone(), case.x.clone(), Stats::new(rows));
        let [x, dy] = [&case.x, &case.dy].map(|of| Rows::new(of, n).unwrap());
        let to = RowsMut::new(&mut y, n).unwrap();
        layernorm::layer_norm(x, params, to, Some(stats.as_mut()), Run::default()).unwrap();
        let [mut dweight, mut dbias] = [(); 2].map(|()| vec![f32::of(SENTINEL); n]);
        let workspace = &mut Workspace::new();
        let of_params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            accumulate: false,
            first_row: 0,
            workspace,
        };
        let wanted = Gradients { dx: Some(RowsMut::new(&mut dx, n).unwrap()), params: Some(of_params) };
        layernorm::layer_norm_backward(x, dy, params, Some(stats.as_ref()), wanted, Run::default()).unwrap();
        assert_all_same(&got, &Results { y, stats, dx, dweight, dbias }, "trailing");
        // And so from another place: the same rows as columns.
        if rows > 0 {
            let mut columns = Case::<f32>::new(&[n, rows], &[0], &[0], 2);
            (columns.weight, columns.bias) = (case.weight.clone(), case.bias.clone());
            for i in 0..rows * n {
                let to = i % n * rows + i / n;
                (columns.x[to], columns.dy[to]) = (case.x[i], case.dy[i]);
            }
            let mut back = columns.run(false, true, Run::default());
            for of in [&mut back.y, &mut back.dx] {
                *of = (0..rows * n).map(|i| of[i % n * rows + i / n]).collect();
            }
            assert_all_same(&got, &back, "columns");
        }
    }
}

/// Bit for bit: over channels and positions with parameters of channels, it is a group norm.
#[test]
fn over_groups_it_is_group_norm() {
    let case = Case::<f32>::new(&[3, 4, 5, 6], &[2, 3], &[1, 2], 7);
    let got = case.run(false, true, Run::default());
    let images = Images::new(3, 20, &[6], Layout::ChannelsFirst).unwrap();
    let params = Params { weight: Some(&case.weight[..]), bias: Some(&case.bias), eps: case.eps };
    let norm = Groups { images, groups: 4, params, activation: Activation::None };
    let (mut y, mut dx, mut stats, mut workspace) =
        (case.x.clone(), case.x.clone(), Stats::new(12), Workspace::new());
    group_norm(norm, &case.x, &mut y, Some(stats.as_mut()), &mut workspace, Run::default()).unwrap();
    let [mut dweight, mut dbias] = [[0.0; 20]; 2];
    let params = ParamGradients {
        dweight: Some(&mut dweight),
        dbias: Some(&mut dbias),
        accumulate: false,
        first_row: 0,
        workspace: &mut workspace,
    };
    let wanted = TensorGradients { dx: Some(&mut dx), params };
    group_norm_backward(norm, &case.x, &case.dy, None, wanted, Run::default()).unwrap();
    let expected = Results { y, stats, dx, dweight: dweight.to_vec(), dbias: dbias.to_vec() };
    assert_all_same(&got, &expected, "groups");
}

/// y, dx, dweight and dbias of one masked row of f64, from the formulas.
#[test]
#[cfg_attr(miri, ignore = "it compares numbers")]
fn masks_are_as_defined() {
    for (shape, over, affine) in settings() {
        for rms in [false, true] {
            let mut case = Case::<f64> { rms, ..Case::new(shape, over, affine, 11) }.masked();
            // One row without any valid number.
            let rows = case.places();
            for place in rows.first().into_iter().flatten() {
                case.mask.as_mut().unwrap()[place[1]] = false;
            }
            let got = case.run(false, true, Run::default());
            let [mut dweight, mut dbias] = [(); 2].map(|()| vec![0.0; case.weight.len()]);
            let near = |got: f64, expected: f64| (got - expected).abs() <= 1e-12 * (1.0 + expected.abs());
            for places in &rows {
                let valid: Vec<_> =
                    places.iter().filter(|place| case.mask.as_ref().unwrap()[place[1]]).collect();
                let count = valid.len() as f64;
                let mean =
                    if rms { 0.0 } else { valid.iter().map(|place| case.x[place[0]]).sum::<f64>() / count };
                let var = valid.iter().map(|place| (case.x[place[0]] - mean).powi(2)).sum::<f64>() / count;
                let r = if valid.is_empty() { 0.0 } else { 1.0 / (var + case.eps).sqrt() };
                let x_hat = |place: &[usize; 3]| if r == 0.0 { 0.0 } else { (case.x[place[0]] - mean) * r };
                let u = |place: &[usize; 3]| case.weight[place[2]] * case.dy[place[0]];
                let along = places.iter().map(|place| u(place) * x_hat(place)).sum::<f64>() / count;
                let ones = if rms { 0.0 } else { places.iter().map(u).sum::<f64>() / count };
                for place in places {
                    let [at, of_mask, param] = *place;
                    let y = x_hat(place) * case.weight[param] + case.bias[param];
                    assert!(near(got.y[at], y), "{shape:?} y: {} {y}", got.y[at]);
                    let part =
                        if case.mask.as_ref().unwrap()[of_mask] { ones + x_hat(place) * along } else { 0.0 };
                    let dx = if r == 0.0 { 0.0 } else { r * (u(place) - part) };
                    assert!(near(got.dx[at], dx), "{shape:?} {over:?} dx: {} {dx}", got.dx[at]);
                    dweight[param] += case.dy[at] * x_hat(place);
                    dbias[param] += case.dy[at];
                }
            }
            for i in 0..dweight.len() {
                assert!((got.dweight[i] - dweight[i]).abs() < 1e-10, "{shape:?} dweight[{i}]");
                assert!((got.dbias[i] - dbias[i]).abs() < 1e-10, "{shape:?} dbias[{i}]");
            }
        }
    }
}

/// Bit for bit: where all is valid, a mask doesn't show; and what is masked doesn't show in the statistics.
#[test]
fn masks_take_out() {
    for (shape, over, affine) in settings() {
        let case = Case::<f32>::new(shape, over, affine, 12);
        let all = Case { mask: Some(vec![true; case.shape.iter().product()]), ..case.clone() };
        let what = format!("{shape:?} {over:?} {affine:?}");
        assert_all_same(&case.run(false, true, Run::default()), &all.run(false, true, Run::default()), &what);
        let some = case.masked();
        let mut other = some.clone();
        let mask = some.mask.as_ref().unwrap();
        for place in some.places().iter().flatten().filter(|place| !mask[place[1]]) {
            other.x[place[0]] = f32::NAN;
        }
        let [some, other] = [some, other].map(|case| case.run(false, true, Run::default()));
        assert_same(&some.stats.m, &other.stats.m, &what);
        assert_same(&some.stats.c, &other.stats.c, &what);
        assert_same(&some.stats.rstd, &other.stats.rstd, &what);
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers")]
fn finite_differences() {
    for (shape, over, affine) in
        SETTINGS.into_iter().filter(|(shape, ..)| shape.iter().product::<usize>() < 300)
    {
        for rms in [false, true] {
            let case = Case::<f64> { rms, ..Case::new(shape, over, affine, 13) }.masked();
            let loss = |case: &Case<f64>| -> f64 {
                let y = case.run(false, true, Run::default()).y;
                y.iter().zip(&case.dy).map(|(y, dy)| y * dy).sum()
            };
            let got = case.run(false, true, Run::default());
            let empty = |place: &[usize; 3]| {
                let rows = case.places();
                let row = rows.iter().find(|row| row.contains(place)).unwrap();
                row.iter().filter(|place| case.mask.as_ref().unwrap()[place[1]]).count() < 2
            };
            for place in case.places().into_iter().flatten().step_by(5).filter(|place| !empty(place)) {
                let [low, high] = [-1e-5, 1e-5].map(|step| {
                    let mut case = case.clone();
                    case.x[place[0]] += step;
                    loss(&case)
                });
                let slope = (high - low) / 2e-5;
                let dx = got.dx[place[0]];
                assert!((dx - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{shape:?} {over:?} {dx} {slope}");
            }
        }
    }
}

#[test]
fn wrong_input_is_refused_and_nothing_written() {
    let weight = [1.0f32; 4];
    let params = Params { weight: Some(&weight[..]), bias: None, eps: 1e-5 };
    let good = OverAxes { shape: &[2, 3, 4], strides: None, over: &[1], affine: &[2], params, mask: None };
    let length = |what, expected, got| Error::Length { what, expected, got };
    let of = |axis| Error::Axis { axis, rank: 3 };
    let valid = [true; 23];
    let masked = |strides| Some(AxesMask { valid: &valid, strides });
    let (max, many) = (usize::MAX, [1; 17]);
    let (large, far) = ([max, 3, 4], [max, 4, 1]);
    let bad: Vec<(OverAxes<'_, f32>, usize, usize, Error)> = vec![
        (OverAxes { over: &[3], ..good }, 24, 24, of(3)),
        (OverAxes { over: &[1, 1], ..good }, 24, 24, of(1)),
        (OverAxes { affine: &[2, 7], ..good }, 24, 24, of(7)),
        (OverAxes { shape: &many, ..good }, 24, 24, Error::Axes { most: 16, got: 17 }),
        (OverAxes { shape: &large, ..good }, 24, 24, Error::Size { axes: vec![max, 3, 4] }),
        (OverAxes { strides: Some(&[12, 4]), ..good }, 24, 24, length("strides", 3, 2)),
        (OverAxes { strides: Some(&[11, 4, 1]), ..good }, 24, 24, Error::Stride { stride: 11, features: 12 }),
        (OverAxes { strides: Some(&[12, 0, 1]), ..good }, 24, 24, Error::Stride { stride: 0, features: 1 }),
        (OverAxes { strides: Some(&far), ..good }, 24, 24, Error::Size { axes: vec![2, 3, 4] }),
        (OverAxes { strides: Some(&[13, 4, 1]), ..good }, 25, 24, length("y", 25, 24)),
        (OverAxes { strides: Some(&[13, 4, 1]), ..good }, 24, 25, length("x", 25, 24)),
        (OverAxes { affine: &[1], ..good }, 24, 24, length("weight", 3, 4)),
        (OverAxes { mask: masked(&[12, 4]), ..good }, 24, 24, length("the mask's strides", 3, 2)),
        (OverAxes { mask: masked(&[12, 4, 1]), ..good }, 24, 24, length("mask", 24, 23)),
        (good, 23, 24, length("x", 24, 23)),
        (good, 24, 25, length("y", 24, 25)),
    ];
    let sentinel = f32::of(SENTINEL);
    for (norm, x, y, expected) in bad {
        let (x, mut y, mut workspace) = (vec![1.0f32; x], vec![sentinel; y], Workspace::new());
        assert_eq!(
            layer_norm_axes(norm, &x, &mut y, None, &mut workspace, Run::default()),
            Err(expected.clone())
        );
        assert_eq!(
            rms_norm_axes(norm, &x, &mut y, None, &mut workspace, Run::default()),
            Err(expected.clone())
        );
        let mut dbias = [sentinel; 4];
        let params = ParamGradients {
            dweight: None,
            dbias: Some(&mut dbias),
            accumulate: true,
            first_row: 0,
            workspace: &mut workspace,
        };
        let error = layer_norm_axes_backward_in_place(norm, &x, &mut y, None, params, Run::default());
        let named = if expected == length("y", 24, 25) { length("dy", 24, 25) } else { expected };
        assert_eq!(error, Err(if named == length("y", 25, 24) { length("dy", 25, 24) } else { named }));
        assert!(y.iter().chain(&dbias).all(|number| *number == sentinel));
    }
    let mut saved = [sentinel; 7];
    let mut y = [sentinel; 24];
    let error =
        rms_norm_axes(good, &[1.0; 24], &mut y, Some(&mut saved), &mut Workspace::new(), Run::default());
    assert_eq!(error, Err(length("rstd", 8, 7)));
    assert!(y.iter().chain(&saved).all(|number| *number == sentinel));
}
