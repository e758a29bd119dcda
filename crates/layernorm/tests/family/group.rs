//! Group and instance norm.

use crate::tools::{Number, Random, SENTINEL, assert_same, levels, over_rows, sum, wide};
use half::{bf16, f16};
use layernorm::reference::{self, Nchw};
use layernorm::{
    Activation, Error, Gradients, Groups, Images, Instances, Layout, ParamGradients, Params, Rows, RowsMut,
    Run, Stats, TensorGradients, Threads, Workspace, group_norm, group_norm_backward,
    group_norm_backward_in_place, group_norm_in_place, instance_norm, instance_norm_backward, layer_norm,
    layer_norm_backward, silu, silu_backward,
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) samples: usize,
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    pub(crate) groups: usize,
}

/// Numbers in the order of NCHW.
#[derive(Clone, Debug)]
pub(crate) struct Case<T> {
    pub(crate) shape: Shape,
    pub(crate) x: Vec<T>,
    pub(crate) dy: Vec<T>,
    pub(crate) weight: Option<Vec<T>>,
    pub(crate) bias: Option<Vec<T>>,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
    pub(crate) first: usize,
}

pub(crate) struct Results<T: Number> {
    pub(crate) y: Vec<T>,
    pub(crate) stats: Stats<T::Acc>,
    pub(crate) dx: Vec<T>,
    pub(crate) dweight: Vec<T::Acc>,
    pub(crate) dbias: Vec<T::Acc>,
}

/// From NCHW to a layout, or back.
pub(crate) fn lay<T: Copy>(shape: Shape, layout: Layout, values: &[T], back: bool) -> Vec<T> {
    let Shape { samples, channels, positions, .. } = shape;
    if layout == Layout::ChannelsFirst {
        return values.to_vec();
    }
    let mut to = values.to_vec();
    for n in 0..samples {
        for c in 0..channels {
            for p in 0..positions {
                let first = (n * channels + c) * positions + p;
                let last = (n * positions + p) * channels + c;
                if back { to[first] = values[last] } else { to[last] = values[first] }
            }
        }
    }
    to
}

impl<T: Number> Case<T>
where
    T::Acc: Number,
{
    fn new(shape: Shape, seed: u64) -> Self {
        let mut random = Random(seed);
        let Shape { samples, channels, positions, .. } = shape;
        let len = samples * channels * positions;
        Self {
            shape,
            x: random.numbers(len, 3.0, 2.0),
            dy: random.numbers(len, 0.3, 1.0),
            weight: Some(random.numbers(channels, 1.0, 0.5)),
            bias: Some(random.numbers(channels, 0.0, 1.0)),
            eps: 1e-5,
            activation: Activation::None,
            first: 0,
        }
    }

    pub(crate) fn norm(&self, layout: Layout) -> Groups<'_, T> {
        let Shape { samples, channels, positions, groups } = self.shape;
        let images = Images::new(samples, channels, &[positions], layout).unwrap();
        let params = Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps };
        Groups { images, groups, params, activation: self.activation }
    }

    /// All of it, in the order of NCHW.
    pub(crate) fn run(&self, layout: Layout, in_place: bool, saved: bool, run: Run) -> Results<T> {
        let (norm, zero) = (self.norm(layout), T::Acc::of(SENTINEL));
        let [x, dy] = [&self.x, &self.dy].map(|of| lay(self.shape, layout, of, false));
        let mut workspace = Workspace::new();
        let mut stats = Stats::new(self.shape.samples * self.shape.groups);
        let mut y = x.clone();
        if in_place {
            group_norm_in_place(norm, &mut y, Some(stats.as_mut()), &mut workspace, run).unwrap();
        } else {
            y.fill(T::of(SENTINEL));
            group_norm(norm, &x, &mut y, Some(stats.as_mut()), &mut workspace, run).unwrap();
        }
        let channels = self.shape.channels;
        let mut dweight = vec![zero; self.weight.as_ref().map_or(channels, Vec::len)];
        let mut dbias = vec![zero; self.bias.as_ref().map_or(channels, Vec::len)];
        let mut dx = dy.clone();
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            accumulate: false,
            first_row: self.first,
            workspace: &mut workspace,
        };
        let of = saved.then(|| stats.as_ref());
        if in_place {
            group_norm_backward_in_place(norm, &x, &mut dx, of, params, run).unwrap();
        } else {
            let wanted = TensorGradients { dx: Some(&mut dx), params };
            group_norm_backward(norm, &x, &dy, of, wanted, run).unwrap();
        }
        let [y, dx] = [y, dx].map(|of| lay(self.shape, layout, &of, true));
        Results { y, stats, dx, dweight, dbias }
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

fn shapes() -> Vec<Shape> {
    let mut shapes = vec![];
    if cfg!(miri) {
        let few = [(0, 2, 3, 1), (2, 6, 3, 3), (1, 4, 1, 2), (1, 32, 17, 2), (9, 1, 2, 1)];
        let shape = |(samples, channels, positions, groups)| Shape { samples, channels, positions, groups };
        return few.map(shape).to_vec();
    }
    for (channels, groups) in [(1, 1), (2, 1), (4, 2), (6, 3), (6, 6), (7, 7), (12, 2), (33, 3), (64, 32)] {
        for positions in [1, 2, 3, 7, 16, 17, 31, 33, 70] {
            for samples in [0, 1, 2, 9] {
                shapes.push(Shape { samples, channels, positions, groups });
            }
        }
    }
    for positions in [255, 256, 257, 1025] {
        shapes.push(Shape { samples: 2, channels: 6, positions, groups: 2 });
    }
    shapes.push(Shape { samples: 40, channels: 3, positions: 5, groups: 3 });
    // Several tiles.
    shapes.push(Shape { samples: 2, channels: 80, positions: 900, groups: 8 });
    shapes.push(Shape { samples: 300, channels: 16, positions: 50, groups: 4 });
    shapes
}

const BOTH: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// Within the bounds of section 9 (and half a unit of a narrow type).
pub(crate) fn within_the_bounds<T: Number>(case: &Case<T>, got: &Results<T>)
where
    T::Acc: Number,
{
    let shape = case.shape;
    let nchw = Nchw { batch: shape.samples, channels: shape.channels, positions: shape.positions };
    let [x, dy] = [&case.x, &case.dy].map(|of| wide(of));
    let by_channel = |of: &Option<Vec<T>>, absent: f64| -> Vec<f64> {
        let own = |channel: usize, of: &Vec<T>| of[if of.len() == 1 { 0 } else { channel }].wide();
        (0..shape.channels).map(|channel| of.as_ref().map_or(absent, |of| own(channel, of))).collect()
    };
    let (weight, bias) = (by_channel(&case.weight, 1.0), by_channel(&case.bias, 0.0));
    let eps = T::Acc::of(case.eps).wide();
    let plain = reference::group_norm(&x, nchw, shape.groups, reference::Affine::NONE, eps);
    let affine = reference::Affine::new(&weight, &bias);
    let true_y = reference::group_norm(&x, nchw, shape.groups, affine, eps).y;
    let back = reference::group_norm_backward(&dy, &x, nchw, shape.groups, affine, eps);
    let u = <T::Acc as Number>::U;
    let narrow = if u == T::U { 0.0 } else { T::U };
    // The oracle of f64 is itself in f64, adds up in order, and loses digits to large means.
    let means = plain.mean.iter().zip(&plain.rstd).map(|(mean, rstd)| (mean * rstd).abs());
    let slack = if u < 1e-12 { 10.0 * (1.0 + means.fold(0.0, f64::max)) } else { 1.0 };
    let per_group = shape.channels / shape.groups * shape.positions;
    let mut sums = vec![[0.0; 2]; shape.channels];
    for (i, y) in got.y.iter().enumerate() {
        let channel = i / shape.positions % shape.channels;
        let x_hat = plain.y[i].abs().max(1.0);
        let bound = 8.0 * u * weight[channel].abs() * x_hat + (u + narrow) * true_y[i].abs() + T::TINY;
        let error = (y.wide() - true_y[i]).abs();
        assert!(error <= slack * bound, "{shape:?} y[{i}]: {y:?}, {}: {error:e} > {bound:e}", true_y[i]);
        let group = i / per_group;
        let of_group = group * per_group..(group + 1) * per_group;
        let most = of_group
            .map(|i| (weight[i / shape.positions % shape.channels] * dy[i]).abs())
            .fold(0.0, f64::max);
        let bound = 16.0 * u * plain.rstd[group] * most * x_hat + narrow * back.dx[i].abs() + T::TINY;
        let error = (got.dx[i].wide() - back.dx[i]).abs();
        assert!(error <= slack * bound, "{shape:?} dx[{i}]: {:?}, {}", got.dx[i], back.dx[i]);
        sums[channel][0] += dy[i].abs();
        sums[channel][1] += dy[i].abs() * x_hat;
    }
    let terms = (1.0 + shape.samples as f64).log2() + (1.0 + shape.positions as f64).log2() + 8.0;
    // That of a shared parameter is the sum over channels.
    let whole = |of: &[f64], len: usize| if len == 1 { vec![of.iter().sum()] } else { of.to_vec() };
    for (what, got, exact, more) in [(0, &got.dbias, &back.dbias, 0.0), (1, &got.dweight, &back.dweight, 8.0)]
    {
        let sizes: Vec<f64> = sums.iter().map(|sums| sums[what]).collect();
        let more = more + if got.len() == 1 { (1.0 + shape.channels as f64).log2() } else { 0.0 };
        let exact = whole(exact, got.len());
        for (channel, size) in whole(&sizes, got.len()).into_iter().enumerate() {
            let error = (got[channel].wide() - exact[channel]).abs();
            assert!(error <= slack * (terms + more) * u * size, "{shape:?} {what} of channel {channel}");
        }
    }
}

fn against_reference<T: Number>()
where
    T::Acc: Number,
{
    for (seed, shape) in shapes().into_iter().enumerate() {
        let case = Case::<T>::new(shape, seed as u64);
        within_the_bounds(&case, &case.run(Layout::ChannelsLast, false, true, Run::default()));
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers")]
fn it_is_the_reference_within_the_bounds() {
    against_reference::<f32>();
    against_reference::<f64>();
    against_reference::<f16>();
    against_reference::<bf16>();
}

fn bits_of<T: Number>()
where
    T::Acc: Number,
{
    for (seed, shape) in shapes().into_iter().enumerate() {
        for activation in [Activation::None, Activation::Silu] {
            let case = Case::<T> { activation, ..Case::new(shape, seed as u64) };
            let one = Run::default().with_threads(Threads::One).with_stream_from(2 << 20);
            let first = case.run(Layout::ChannelsFirst, false, true, one);
            for layout in BOTH {
                for (in_place, saved) in [(true, true), (false, false)] {
                    let what =
                        format!("{shape:?} {layout:?} {activation:?} in place {in_place}, saved {saved}");
                    assert_all_same(&first, &case.run(layout, in_place, saved, one), &what);
                }
                // The pool's threads, if there is a pool.
                assert_all_same(
                    &first,
                    &case.run(layout, false, true, Run::default()),
                    &format!("{shape:?} threads"),
                );
                // Through the caches, and past them.
                for (level, from) in levels().into_iter().flat_map(|level| [(level, 2 << 20), (level, 0)]) {
                    let what = format!("{shape:?} {layout:?} {level}, past the caches from {from} bytes on");
                    let run = one.with_level(level).with_stream_from(from);
                    assert_all_same(&first, &case.run(layout, false, true, run), &what);
                }
            }
        }
    }
}

#[test]
fn layouts_levels_threads_and_places_give_the_same_bits() {
    bits_of::<f32>();
    bits_of::<f64>();
}

#[test]
fn and_so_in_halves() {
    bits_of::<f16>();
    bits_of::<bf16>();
}

#[test]
fn rows_out_of_range_too() {
    for (scale, eps) in [(1e30, 1e-5), (1e-30, 0.0), (1e37, 0.0), (1e-42, 1e-30)] {
        let shape = Shape { samples: 9, channels: 6, positions: 5, groups: 2 };
        let mut case = Case::<f32> { eps, ..Case::new(shape, 5) };
        case.x.iter_mut().skip(30).step_by(3).for_each(|x| *x *= scale);
        let first = case.run(Layout::ChannelsFirst, false, true, Run::default());
        assert!(first.y.iter().all(|y| y.is_finite()));
        within_the_bounds(&case, &first);
        for level in levels() {
            let last = case.run(Layout::ChannelsLast, false, false, Run::default().with_level(level));
            assert_all_same(&first, &last, "out of range");
        }
    }
}

/// The saved statistics make x_hat; the sums go by positions and then by samples.
#[test]
fn sums_are_in_the_published_order() {
    for shape in shapes() {
        for first in [0, 5, 16] {
            let case = Case::<f32> { first, ..Case::new(shape, 3) };
            let got = case.run(Layout::ChannelsLast, false, true, Run::default());
            let Shape { samples, channels, positions, groups } = shape;
            for channel in 0..channels {
                let (mut products, mut plain) = (vec![], vec![]);
                for sample in 0..samples {
                    let row = sample * groups + channel / (channels / groups);
                    let [m, c, r] = [got.stats.m[row], got.stats.c[row], got.stats.rstd[row]];
                    let at = (sample * channels + channel) * positions;
                    let dy = &case.dy[at..at + positions];
                    let x_hat: Vec<f32> =
                        case.x[at..at + positions].iter().map(|x| (x - m).mul_add(r, -(c * r))).collect();
                    products.push(sum(dy, &x_hat));
                    plain.push(sum(dy, &vec![1.0; positions]));
                }
                let expected = [over_rows(first, &products), over_rows(first, &plain)];
                assert_same(
                    &[got.dweight[channel], got.dbias[channel]],
                    &expected,
                    &format!("{shape:?} {first}"),
                );
            }
        }
    }
}

/// Bit for bit: one group is a layer norm over channels and positions.
#[test]
fn one_group_is_layer_norm() {
    for shape in shapes().into_iter().filter(|shape| shape.samples > 0) {
        let shape = Shape { groups: 1, ..shape };
        let case = Case::<f32>::new(shape, 1);
        let features = shape.channels * shape.positions;
        let expand = |of: &Option<Vec<f32>>| -> Vec<f32> {
            let of = of.as_ref().unwrap();
            (0..features).map(|i| of[i / shape.positions]).collect()
        };
        let (weight, bias) = (expand(&case.weight), expand(&case.bias));
        let params = Params { weight: Some(&weight[..]), bias: Some(&bias), eps: case.eps };
        let (mut y, mut dx, mut stats) = (case.x.clone(), case.x.clone(), Stats::new(shape.samples));
        let rows = Rows::new(&case.x, features).unwrap();
        let to = RowsMut::new(&mut y, features).unwrap();
        layer_norm(rows, params, to, Some(stats.as_mut()), Run::default()).unwrap();
        let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, features).unwrap()), params: None };
        let dy = Rows::new(&case.dy, features).unwrap();
        layer_norm_backward(rows, dy, params, Some(stats.as_ref()), gradients, Run::default()).unwrap();
        for layout in BOTH {
            let got = case.run(layout, false, true, Run::default());
            assert_same(&got.y, &y, "y");
            assert_same(&got.dx, &dx, "dx");
            assert_same(&got.stats.m, &stats.m, "m");
            assert_same(&got.stats.c, &stats.c, "c");
            assert_same(&got.stats.rstd, &stats.rstd, "rstd");
        }
    }
}

/// Bit for bit: as many groups as channels are an instance norm.
#[test]
fn a_group_a_channel_is_instance_norm() {
    for shape in shapes() {
        let shape = Shape { groups: shape.channels, ..shape };
        let case = Case::<f64>::new(shape, 1);
        for layout in BOTH {
            let got = case.run(layout, false, true, Run::default());
            let Groups { images, params, activation, .. } = case.norm(layout);
            let norm = Instances { images, params, activation };
            let [x, dy] = [&case.x, &case.dy].map(|of| lay(shape, layout, of, false));
            let (mut y, mut dx, mut workspace) = (x.clone(), x.clone(), Workspace::new());
            instance_norm(norm, &x, &mut y, None, &mut workspace, Run::default()).unwrap();
            let (mut dweight, mut dbias) = (vec![0.0; shape.channels], vec![0.0; shape.channels]);
            let params = ParamGradients {
                dweight: Some(&mut dweight),
                dbias: Some(&mut dbias),
                accumulate: false,
                first_row: 0,
                workspace: &mut workspace,
            };
            let wanted = TensorGradients { dx: Some(&mut dx), params };
            instance_norm_backward(norm, &x, &dy, None, wanted, Run::default()).unwrap();
            assert_same(&got.y, &lay(shape, layout, &y, true), "y");
            assert_same(&got.dx, &lay(shape, layout, &dx, true), "dx");
            assert_same(&got.dweight, &dweight, "dweight");
            assert_same(&got.dbias, &dbias, "dbias");
        }
    }
}

/// Bit for bit: fused is the norm, then [`silu`].
fn fused<T: Number>()
where
    T::Acc: Number,
{
    for shape in shapes() {
        for layout in BOTH {
            let case = Case::<T> { activation: Activation::Silu, ..Case::new(shape, 8) };
            let got = case.run(layout, false, true, Run::default());
            let plain = Case { activation: Activation::None, ..case.clone() };
            let z = plain.run(layout, false, true, Run::default());
            let (mut y, mut dz) = (z.y.clone(), z.y.clone());
            silu(&z.y, &mut y, Run::default()).unwrap();
            silu_backward(&z.y, &case.dy, &mut dz, Run::default()).unwrap();
            let back = Case { dy: dz, ..plain }.run(layout, false, true, Run::default());
            assert_all_same(&got, &Results { y, ..back }, &format!("{shape:?}"));
        }
    }
}

#[test]
fn fused_is_unfused() {
    fused::<f32>();
    fused::<f64>();
    fused::<bf16>();
}

#[test]
fn shards_of_samples_are_nodes_of_the_tree() {
    let shape = Shape { samples: 32, channels: 4, positions: 9, groups: 2 };
    let whole = Case::<f32>::new(shape, 2);
    let all = whole.run(Layout::ChannelsFirst, false, true, Run::default());
    let half = |part: usize| {
        let shape = Shape { samples: 16, ..shape };
        let numbers = part * 16 * 36..(part + 1) * 16 * 36;
        let (x, dy) = (whole.x[numbers.clone()].to_vec(), whole.dy[numbers].to_vec());
        Case { shape, x, dy, first: 16 * part, ..whole.clone() }.run(
            Layout::ChannelsLast,
            false,
            true,
            Run::default(),
        )
    };
    let [first, second] = [0, 1].map(half);
    let add = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
    assert_same(&all.dweight, &add(&first.dweight, &second.dweight), "dweight");
    assert_same(&all.dbias, &add(&first.dbias, &second.dbias), "dbias");
}

#[test]
fn shared_and_absent_parameters() {
    let shape = Shape { samples: 3, channels: 6, positions: 7, groups: 3 };
    let full = |value: f64| Some(vec![value; 6]);
    for (one, all) in [(Some(vec![1.5]), full(1.5)), (None, full(1.0))] {
        let bias = one.as_ref().map_or_else(|| full(-0.0), |_| full(1.5));
        let few = Case::<f64> { weight: one.clone(), bias: one.clone(), ..Case::new(shape, 4) };
        let many = Case::<f64> { weight: all, bias, ..Case::new(shape, 4) };
        for layout in BOTH {
            let [few, many] = [&few, &many].map(|case| case.run(layout, false, true, Run::default()));
            assert_same(&few.y, &many.y, "y");
            assert_same(&few.dx, &many.dx, "dx");
            if one.is_some() {
                let error = (few.dweight[0] - many.dweight.iter().sum::<f64>()).abs();
                assert!(few.dweight.len() == 1 && error < 1e-12, "a shared weight's gradient is the sum");
            } else {
                assert_same(&few.dweight, &many.dweight, "dweight");
            }
        }
    }
}

#[test]
fn one_number_a_group_is_the_bias() {
    let shape = Shape { samples: 3, channels: 5, positions: 1, groups: 5 };
    for layout in BOTH {
        let case = Case::<f32>::new(shape, 4);
        let got = case.run(layout, false, true, Run::default());
        assert_same(&got.y, &case.bias.as_ref().unwrap().repeat(3), "y");
        assert!(got.dx.iter().all(|dx| *dx == 0.0));
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers")]
fn finite_differences() {
    for activation in [Activation::None, Activation::Silu] {
        let shape = Shape { samples: 2, channels: 4, positions: 3, groups: 2 };
        let case = Case::<f64> { activation, ..Case::new(shape, 6) };
        let got = case.run(Layout::ChannelsLast, false, true, Run::default());
        let loss = |case: &Case<f64>| -> f64 {
            let y = case.run(Layout::ChannelsFirst, false, true, Run::default()).y;
            y.iter().zip(&case.dy).map(|(y, dy)| y * dy).sum()
        };
        let slope = |change: &dyn Fn(&mut Case<f64>, f64)| {
            let [low, high] = [-1e-5, 1e-5].map(|step| {
                let mut case = case.clone();
                change(&mut case, step);
                loss(&case)
            });
            (high - low) / 2e-5
        };
        for i in 0..case.x.len() {
            let expected = slope(&|case, step| case.x[i] += step);
            assert!((got.dx[i] - expected).abs() < 1e-7, "dx[{i}]: {} {expected}", got.dx[i]);
        }
        for i in 0..4 {
            let expected = slope(&|case, step| case.weight.as_mut().unwrap()[i] += step);
            assert!((got.dweight[i] - expected).abs() < 1e-7, "dweight[{i}]");
            let expected = slope(&|case, step| case.bias.as_mut().unwrap()[i] += step);
            assert!((got.dbias[i] - expected).abs() < 1e-7, "dbias[{i}]");
        }
    }
}

#[test]
fn images_are_checked() {
    let new =
        |samples, channels, spatial: &[usize]| Images::new(samples, channels, spatial, Layout::ChannelsLast);
    assert_eq!(new(1, 0, &[4, 3]), Err(Error::NoChannels { channels: 0, positions: 12 }));
    assert_eq!(new(1, 2, &[4, 0]), Err(Error::NoChannels { channels: 2, positions: 0 }));
    assert_eq!(new(1, 2, &[usize::MAX, 2]), Err(Error::Size { axes: vec![usize::MAX, 2] }));
    assert_eq!(new(usize::MAX, 3, &[5]), Err(Error::Size { axes: vec![usize::MAX, 3, 5] }));
    assert_eq!(new(3, 2, &[]).unwrap().len(), 6);
    assert!(new(0, 2, &[]).unwrap().is_empty());
}

#[test]
fn wrong_input_is_refused_and_nothing_written() {
    let images = Images::new(2, 6, &[2, 2], Layout::ChannelsFirst).unwrap();
    let length = |what, expected, got| Error::Length { what, expected, got };
    let weight = [1.0f32; 6];
    let params = Params { weight: Some(&weight[..]), bias: Some(&weight), eps: 1e-5 };
    let good = Groups { images, groups: 3, params, activation: Activation::Silu };
    let bad: Vec<(Groups<'_, f32>, [usize; 3], usize, Error)> = vec![
        (Groups { groups: 4, ..good }, [48, 48, 48], 6, Error::Groups { channels: 6, groups: 4 }),
        (Groups { groups: 0, ..good }, [48, 48, 48], 6, Error::Groups { channels: 6, groups: 0 }),
        (Groups { groups: 12, ..good }, [48, 48, 48], 6, Error::Groups { channels: 6, groups: 12 }),
        (good, [47, 48, 48], 6, length("x", 48, 47)),
        (good, [48, 49, 48], 6, length("y", 48, 49)),
        (good, [48, 48, 48], 5, length("m", 6, 5)),
        (
            Groups { params: Params { weight: Some(&weight[..5]), ..params }, ..good },
            [48, 48, 48],
            6,
            length("weight", 6, 5),
        ),
        (
            Groups { params: Params { bias: Some(&[]), ..params }, ..good },
            [48, 48, 48],
            6,
            length("bias", 6, 0),
        ),
        (
            Groups { params: Params { eps: -1.0, ..params }, ..good },
            [48, 48, 48],
            6,
            Error::Epsilon { eps: -1.0, max: f32::MAX.into() },
        ),
    ];
    let sentinel = f32::of(SENTINEL);
    for (norm, [x, y, _], saved, expected) in bad {
        let (x, mut y, mut stats) = (vec![1.0f32; x], vec![sentinel; y], Stats::new(saved));
        stats.m.fill(sentinel);
        let mut workspace = Workspace::new();
        let error = group_norm(norm, &x, &mut y, Some(stats.as_mut()), &mut workspace, Run::default());
        assert_eq!(error, Err(expected.clone()));
        assert!(y.iter().chain(&stats.m).all(|y| *y == sentinel));
        if !matches!(&expected, Error::Length { what: "y", .. }) {
            let error = group_norm_in_place(
                norm,
                &mut x.clone(),
                Some(stats.as_mut()),
                &mut workspace,
                Run::default(),
            );
            assert_eq!(error, Err(expected));
        }
    }
    let cases: [(usize, usize, usize, usize, usize, usize, Error); 6] = [
        (47, 48, 48, 6, 6, 0, length("x", 48, 47)),
        (48, 47, 48, 6, 6, 0, length("dy", 48, 47)),
        (48, 48, 50, 6, 6, 0, length("dx", 48, 50)),
        (48, 48, 48, 5, 6, 0, length("dweight", 6, 5)),
        (48, 48, 48, 6, 2, 0, length("dbias", 6, 2)),
        (48, 48, 48, 6, 6, usize::MAX, Error::RowIndex { first_row: usize::MAX, rows: 2 }),
    ];
    for (x, dy, dx, dweight, dbias, first_row, expected) in cases {
        let (x, dy) = (vec![1.0f32; x], vec![1.0f32; dy]);
        let [mut dx, mut dweight, mut dbias] = [dx, dweight, dbias].map(|len| vec![sentinel; len]);
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            accumulate: true,
            first_row,
            workspace: &mut Workspace::new(),
        };
        let wanted = TensorGradients { dx: Some(&mut dx), params };
        assert_eq!(group_norm_backward(good, &x, &dy, None, wanted, Run::default()), Err(expected));
        assert!(dx.iter().chain(&dweight).chain(&dbias).all(|number| *number == sentinel));
    }
}

/// A row that ends with a register of lanes asks for no parameter beyond its own.
#[test]
fn what_follows_the_parameters_does_not_show() {
    fn check<T: Number>()
    where
        T::Acc: Number,
    {
        for shape in shapes() {
            let case = Case::<T>::new(shape, 9);
            let expected = case.run(Layout::ChannelsFirst, false, true, Run::default());
            let longer = |of: &Option<Vec<T>>| [&of.as_ref().unwrap()[..], &[T::of(f64::NAN); 40]].concat();
            let (weight, bias) = (longer(&case.weight), longer(&case.bias));
            for layout in BOTH {
                let params = Params {
                    weight: Some(&weight[..shape.channels]),
                    bias: Some(&bias[..shape.channels]),
                    eps: case.eps,
                };
                let norm = Groups { params, ..case.norm(layout) };
                let [x, dy] = [&case.x, &case.dy].map(|of| lay(shape, layout, of, false));
                let (mut dx, mut dweight, mut workspace) =
                    (x.clone(), expected.dweight.clone(), Workspace::new());
                let params = ParamGradients {
                    dweight: Some(&mut dweight),
                    dbias: None,
                    accumulate: false,
                    first_row: 0,
                    workspace: &mut workspace,
                };
                let wanted = TensorGradients { dx: Some(&mut dx), params };
                group_norm_backward(norm, &x, &dy, None, wanted, Run::default()).unwrap();
                assert_same(&lay(shape, layout, &dx, true), &expected.dx, &format!("{shape:?} dx"));
                assert_same(&dweight, &expected.dweight, &format!("{shape:?} dweight"));
            }
        }
    }
    check::<f32>();
    check::<bf16>();
}
