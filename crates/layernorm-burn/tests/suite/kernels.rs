//! Every norm beyond layer and RMS norm has the bits of the slice kernels, in each type of x and of the parameters.

use super::*;
use burn::tensor::{ElementConversion, bf16, f16};
use layernorm::{
    Activation, AdaGradients, AddGradients, Batch, BatchGradients, BatchMut, Branch, Companion, Gradients,
    Groups, HeadNorm, Images, Layout, Modulation, ModulationGradients, ParamGradients, Params, QkParams,
    Residual, RmsParams, Rows, RowsMut, Run, RunningRef, ScaleIs, Stats, TensorGradients, Trained, Training,
    Upstream, WeightNorm, WeightNormGradients, Workspace,
};
use layernorm_burn::HeadNormKind;

/// A number that tensors and kernels know.
trait Number:
    Element + bytemuck::Pod + layernorm::Element<Acc: Element + bytemuck::Pod + layernorm::Real>
{
}
impl<T> Number for T where
    T: Element + bytemuck::Pod + layernorm::Element<Acc: Element + bytemuck::Pod + layernorm::Real>
{
}

/// Numbers from a seed, rounded to this type.
fn values<T: Element>(len: usize, seed: u64) -> Vec<T> {
    numbers(len, seed).into_iter().map(T::from_elem).collect()
}

fn leaf<T: Number, const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let data = TensorData::new(values::<T>(shape.iter().product(), seed), shape);
    let leaf = Tensor::from_data(data, (device, T::dtype()));
    if device.is_autodiff() { leaf.require_grad() } else { leaf }
}

/// What a call on slices is given, and fills.
struct Slices<'a, E: Number, P> {
    x: &'a [E],
    dy: &'a [E],
    params: Params<'a, P>,
    y: &'a mut [E],
    dx: &'a mut [E],
    gradients: ParamGradients<'a, E::Acc>,
}

fn same<T: Number, const D: usize>(got: Tensor<D>, want: &[T], what: &str) {
    let got = vec_of::<T, D>(got.without_autodiff());
    assert!(
        bytemuck::cast_slice::<T, u8>(&got) == bytemuck::cast_slice::<T, u8>(want),
        "{what} has other bits"
    );
}

/// y, dx, dgamma and dbeta of tensors beside those of slices; and y where x is overwritten.
fn check<E: Number, P: Number + Companion<E>, const D: usize, const Q: usize>(
    name: &str,
    shape: [usize; D],
    of_params: [Option<[usize; Q]>; 2],
    by_tensors: impl Fn(Tensor<D>, [Option<Tensor<Q>>; 2]) -> Tensor<D>,
    by_slices: impl FnOnce(Slices<'_, E, P>) -> Result<(), layernorm::Error>,
) {
    let what = |part: &str| format!("{name} {:?} beside {:?}: {part}", E::dtype(), P::dtype());
    let len = shape.iter().product();
    let (x, dy) = (values::<E>(len, 1), values::<E>(len, 4));
    let lens = of_params.map(|shape| shape.map(|shape| shape.iter().product::<usize>()));
    let [gamma, beta] = [lens[0].map(|len| values::<P>(len, 2)), lens[1].map(|len| values::<P>(len, 3))];
    let (mut y, mut dx) = (vec![E::default(); len], vec![E::default(); len]);
    let zeros = |len: usize| vec![<E::Acc as Default>::default(); len];
    let [mut dgamma, mut dbeta] = lens.map(|len| len.map(zeros));
    let slices = Slices {
        x: &x,
        dy: &dy,
        params: Params { weight: gamma.as_deref(), bias: beta.as_deref(), eps: EPS },
        y: &mut y,
        dx: &mut dx,
        gradients: ParamGradients {
            dweight: dgamma.as_deref_mut(),
            dbias: dbeta.as_deref_mut(),
            accumulate: false,
            first_row: 0,
            workspace: &mut Workspace::new(),
        },
    };
    by_slices(slices).expect("the kernels take it");

    let device = Device::flex().autodiff();
    let x = leaf::<E, D>(shape, 1, &device);
    let params = [
        of_params[0].map(|s| leaf::<P, Q>(s, 2, &device)),
        of_params[1].map(|s| leaf::<P, Q>(s, 3, &device)),
    ];
    let result = by_tensors(x.clone(), params.clone());
    same(result.clone(), &y, &what("y"));
    let dy = Tensor::from_data(TensorData::new(dy, shape), (&device, E::dtype()));
    let gradients = (result * dy).sum().backward();
    same(x.grad(&gradients).expect("dx"), &dx, &what("dx"));
    for (name, parameter, sums) in [("dgamma", &params[0], &dgamma), ("dbeta", &params[1], &dbeta)] {
        if let (Some(parameter), Some(sums)) = (parameter, sums) {
            let rounded: Vec<P> = sums.iter().map(|sum| P::from_elem(*sum)).collect();
            same(parameter.grad(&gradients).expect("a gradient"), &rounded, &what(name));
        }
    }
    let device = Device::flex();
    let params = [
        of_params[0].map(|s| leaf::<P, Q>(s, 2, &device)),
        of_params[1].map(|s| leaf::<P, Q>(s, 3, &device)),
    ];
    same(by_tensors(leaf::<E, D>(shape, 1, &device), params), &y, &what("y in place"));
}

/// `f` in each type of elements, beside parameters of that type and of f32.
macro_rules! in_all_types {
    ($($f:ident),*) => {
        #[test]
        fn bits_are_those_of_the_slices() {
            $(
                $f::<f32, f32>();
                $f::<f64, f64>();
                $f::<f16, f16>();
                $f::<f16, f32>();
                $f::<bf16, bf16>();
                $f::<bf16, f32>();
            )*
        }
    };
}
in_all_types!(partial, scale, heads, groups, batch, batch_eval, weight, adaptive, add);

const FLAT: [usize; 2] = [37, 70];
const IMAGE: [usize; 4] = [9, 12, 5, 7];

fn partial<E: Number, P: Number + Companion<E>>() {
    let by_tensors =
        |x, [gamma, beta]: [Option<Tensor<1>>; 2]| layernorm_burn::partial_rms_norm(x, 5, gamma, beta, EPS);
    check::<E, P, 2, 1>("partial RMS norm", FLAT, [Some([70]), Some([70])], by_tensors, |call| {
        let params = RmsParams { partial: Some(5), ..call.params.into() };
        let (x, dy) = (Rows::new(call.x, 70)?, Rows::new(call.dy, 70)?);
        layernorm::rms_norm(x, params, RowsMut::new(call.y, 70)?, None, Run::default())?;
        let gradients = Gradients { dx: Some(RowsMut::new(call.dx, 70)?), params: Some(call.gradients) };
        layernorm::rms_norm_backward(x, dy, params, None, gradients, Run::default())
    });
}

fn scale<E: Number, P: Number + Companion<E>>() {
    let by_tensors = |x, [g, _]: [Option<Tensor<1>>; 2]| layernorm_burn::scale_norm(x, g, EPS);
    check::<E, P, 2, 1>("scale norm", FLAT, [Some([1]), None], by_tensors, |call| {
        let g = call.params.weight.expect("a gain")[0];
        let (x, dy) = (Rows::new(call.x, 70)?, Rows::new(call.dy, 70)?);
        layernorm::scale_norm(x, g, EPS, RowsMut::new(call.y, 70)?, None, Run::default())?;
        let gradients = Gradients { dx: Some(RowsMut::new(call.dx, 70)?), params: Some(call.gradients) };
        layernorm::scale_norm_backward(x, dy, g, EPS, gradients, Run::default())
    });
    let by_tensors = |x, _: [Option<Tensor<1>>; 2]| layernorm_burn::l2_norm(x, EPS);
    check::<E, P, 2, 1>("L2 norm", FLAT, [None, None], by_tensors, |call| {
        let (x, dy) = (Rows::new(call.x, 70)?, Rows::new(call.dy, 70)?);
        layernorm::l2_norm(x, EPS, RowsMut::new(call.y, 70)?, None, Run::default())?;
        layernorm::l2_norm_backward(x, dy, EPS, RowsMut::new(call.dx, 70)?, Run::default())
    });
}

fn heads<E: Number, P: Number + Companion<E>>() {
    let kinds = [
        (HeadNormKind::Rms, HeadNorm::Rms),
        (HeadNormKind::Layer, HeadNorm::Layer),
        (HeadNormKind::L2, HeadNorm::L2),
    ];
    for ((kind, norm), len) in kinds.into_iter().flat_map(|kind| [(kind, 16), (kind, 80)]) {
        let by_tensors =
            |x, [gamma, beta]: [Option<Tensor<1>>; 2]| layernorm_burn::head_norm(x, kind, gamma, beta, EPS);
        let name = format!("{kind:?} of heads, {len}");
        check::<E, P, 4, 1>(&name, [2, 9, 5, 16], [Some([len]), Some([len])], by_tensors, |call| {
            let Params { weight, bias, eps } = call.params;
            let params = QkParams { norm, heads: 5, weight, bias, eps };
            let (x, dy) = (Rows::new(call.x, 16)?, Rows::new(call.dy, 16)?);
            layernorm::qk_norm(x, params, RowsMut::new(call.y, 16)?, Run::default())?;
            let gradients = Gradients { dx: Some(RowsMut::new(call.dx, 16)?), params: Some(call.gradients) };
            layernorm::qk_norm_backward(x, dy, params, gradients, Run::default())
        });
    }
}

fn groups<E: Number, P: Number + Companion<E>>() {
    for groups in [1, 4, 12] {
        let by_tensors = |x, [gamma, beta]: [Option<Tensor<1>>; 2]| {
            layernorm_burn::group_norm(x, groups, gamma, beta, EPS)
        };
        check::<E, P, 4, 1>("group norm", IMAGE, [Some([12]), Some([12])], by_tensors, |call| {
            let images = Images::new(9, 12, &[5, 7], Layout::ChannelsFirst)?;
            let norm = Groups { images, groups, params: call.params, activation: Activation::None };
            let mut saved = Stats::new(9 * groups);
            let (workspace, run) = (&mut Workspace::new(), Run::default());
            layernorm::group_norm(norm, call.x, call.y, Some(saved.as_mut()), workspace, run)?;
            let gradients = TensorGradients { dx: Some(call.dx), params: call.gradients };
            layernorm::group_norm_backward(norm, call.x, call.dy, Some(saved.as_ref()), gradients, run)
        });
    }
}

fn batch<E: Number, P: Number + Companion<E>>() {
    let by_tensors =
        |x, [gamma, beta]: [Option<Tensor<1>>; 2]| layernorm_burn::batch_norm(x, gamma, beta, EPS);
    check::<E, P, 4, 1>("batch norm", IMAGE, [Some([12]), Some([12])], by_tensors, |call| {
        let read = |of| Batch::channels_first(Rows::new(of, 12 * 35)?, 12);
        let (mut saved, mut workspace) = (Stats::new(12), Workspace::new());
        let training = Training::new(saved.as_mut(), &mut workspace);
        let y = BatchMut::channels_first(RowsMut::new(call.y, 12 * 35)?, 12)?;
        layernorm::batch_norm_train(read(call.x)?, call.params, y, training, Run::default())?;
        let dx = Some(BatchMut::channels_first(RowsMut::new(call.dx, 12 * 35)?, 12)?);
        let gradients = BatchGradients { dx, params: call.gradients };
        let (x, dy, trained) = (read(call.x)?, read(call.dy)?, Trained::new(saved.as_ref()));
        layernorm::batch_norm_train_backward(x, dy, call.params, trained, gradients, Run::default())
    });
    let by_tensors =
        |x, [gamma, beta]: [Option<Tensor<1>>; 2]| layernorm_burn::batch_norm(x, gamma, beta, EPS);
    check::<E, P, 2, 1>("flat batch norm", FLAT, [Some([70]), Some([70])], by_tensors, |call| {
        let read = |of| Batch::channels_last(Rows::new(of, 70)?, 1);
        let (mut saved, mut workspace) = (Stats::new(70), Workspace::new());
        let training = Training::new(saved.as_mut(), &mut workspace);
        let y = BatchMut::channels_last(RowsMut::new(call.y, 70)?, 1)?;
        layernorm::batch_norm_train(read(call.x)?, call.params, y, training, Run::default())?;
        let dx = Some(BatchMut::channels_last(RowsMut::new(call.dx, 70)?, 1)?);
        let gradients = BatchGradients { dx, params: call.gradients };
        let (x, dy, trained) = (read(call.x)?, read(call.dy)?, Trained::new(saved.as_ref()));
        layernorm::batch_norm_train_backward(x, dy, call.params, trained, gradients, Run::default())
    });
}

fn batch_eval<E: Number, P: Number + Companion<E>>() {
    let (mean, var) = (values::<E::Acc>(12, 7), vec![E::Acc::from_elem(1.3); 12]);
    let by_tensors = |x, [gamma, beta]: [Option<Tensor<1>>; 2]| {
        let given = |of: &[E::Acc]| {
            let data = TensorData::new(of.to_vec(), [12]);
            Tensor::<1>::from_data(data, (&Device::flex(), <E::Acc as Element>::dtype()))
        };
        layernorm_burn::batch_norm_eval(x, given(&mean), given(&var), gamma, beta, EPS)
    };
    check::<E, P, 4, 1>("batch norm in evaluation", IMAGE, [Some([12]), Some([12])], by_tensors, |call| {
        let read = |of| Batch::channels_first(Rows::new(of, 12 * 35)?, 12);
        let running = RunningRef { mean: &mean, var: &var };
        let y = BatchMut::channels_first(RowsMut::new(call.y, 12 * 35)?, 12)?;
        layernorm::batch_norm_eval(
            read(call.x)?,
            call.params,
            running,
            y,
            &mut Workspace::new(),
            Run::default(),
        )?;
        let dx = Some(BatchMut::channels_first(RowsMut::new(call.dx, 12 * 35)?, 12)?);
        let gradients = BatchGradients { dx, params: call.gradients };
        let (x, dy) = (read(call.x)?, read(call.dy)?);
        layernorm::batch_norm_eval_backward(x, dy, call.params, running, gradients, Run::default())
    });
}

fn weight<E: Number, P: Number + Companion<E>>() {
    for (axis, units) in [(0, 9), (1, 12), (3, 7)] {
        let by_tensors = |v, [gamma, _]: [Option<Tensor<1>>; 2]| {
            layernorm_burn::try_weight_norm(v, gamma.expect("a gain"), axis).expect("it fits")
        };
        check::<E, P, 4, 1>("weight norm", IMAGE, [Some([units]), None], by_tensors, |call| {
            let of = WeightNorm { gain: call.params.weight.expect("a gain"), shape: &IMAGE, axis };
            let mut rnorm = vec![<E::Acc as Default>::default(); units];
            let run = Run::default();
            layernorm::weight_norm(call.x, of, call.y, Some(&mut rnorm), &mut Workspace::new(), run)?;
            let (dgain, workspace) = (call.gradients.dweight, call.gradients.workspace);
            let gradients = WeightNormGradients { dv: Some(call.dx), dgain, workspace };
            layernorm::weight_norm_backward(call.x, call.dy, of, Some(&rnorm), gradients, run)
        });
    }
}

fn adaptive<E: Number, P: Number + Companion<E>>() {
    let (shape, of_samples) = ([3, 17, 40], [Some([3, 40]), Some([3, 40])]);
    fn modulation<'a, P>(params: Params<'a, P>) -> Result<Modulation<'a, P>, layernorm::Error> {
        let scale = Rows::new(params.weight.expect("a scale"), 40)?;
        let shift = Some(Rows::new(params.bias.expect("a shift"), 40)?);
        Ok(Modulation { scale, shift, scale_is: ScaleIs::AboveOne, eps: EPS })
    }
    fn wanted<'a, E: Number>(
        dx: &'a mut [E],
        of: ParamGradients<'a, E::Acc>,
    ) -> Result<AdaGradients<'a, E>, layernorm::Error> {
        let rows = |of: Option<&'a mut [E::Acc]>| of.map(|of| RowsMut::new(of, 40)).transpose();
        let (dscale, dshift) = (rows(of.dweight)?, rows(of.dbias)?);
        let modulation = ModulationGradients { dscale, dshift, accumulate: false, workspace: of.workspace };
        Ok(AdaGradients { dx: Some(RowsMut::new(dx, 40)?), modulation: Some(modulation) })
    }
    let by_tensors = |x, [scale, shift]: [Option<Tensor<2>>; 2]| {
        layernorm_burn::adaptive_layer_norm(x, scale.expect("a scale"), shift, EPS)
    };
    check::<E, P, 3, 2>("adaptive layer norm", shape, of_samples, by_tensors, |call| {
        let (x, dy, of) = (Rows::new(call.x, 40)?, Rows::new(call.dy, 40)?, modulation(call.params)?);
        let mut saved = Stats::new(51);
        let y = RowsMut::new(call.y, 40)?;
        layernorm::ada_layer_norm(x, of, y, Some(saved.as_mut()), Run::default())?;
        let gradients = wanted(call.dx, call.gradients)?;
        layernorm::ada_layer_norm_backward(x, dy, of, Some(saved.as_ref()), gradients, Run::default())
    });
    let by_tensors = |x, [scale, shift]: [Option<Tensor<2>>; 2]| {
        layernorm_burn::adaptive_rms_norm(x, scale.expect("a scale"), shift, EPS)
    };
    check::<E, P, 3, 2>("adaptive RMS norm", shape, of_samples, by_tensors, |call| {
        let (x, dy, of) = (Rows::new(call.x, 40)?, Rows::new(call.dy, 40)?, modulation(call.params)?);
        layernorm::ada_rms_norm(x, of, RowsMut::new(call.y, 40)?, None, Run::default())?;
        let gradients = wanted(call.dx, call.gradients)?;
        layernorm::ada_rms_norm_backward(x, dy, of, None, gradients, Run::default())
    });
}

/// x is added to itself; its gradient is then twice that of the sum, which only an exponent shows.
fn add<E: Number, P: Number + Companion<E>>() {
    fn residual<'a, E: Number, P>(
        x: Rows<'a, E>,
        out: &'a mut [E],
    ) -> Result<Residual<'a, E, E, P>, layernorm::Error> {
        Ok(Residual { residual: x, out: RowsMut::new(out, 70)?, branch: Branch::default() })
    }
    fn wanted<'a, E: Number>(
        dx: &'a mut [E],
        of: ParamGradients<'a, E::Acc>,
    ) -> Result<AddGradients<'a, E, E>, layernorm::Error> {
        let dresidual = RowsMut::new(dx, 70)?;
        let (mask, dx, branch_bias) = (None, None, None);
        Ok(AddGradients { upstream: Upstream::Nothing, dresidual, mask, dx, branch_bias, params: Some(of) })
    }
    fn twice<E: Number>(dx: &mut [E]) {
        dx.iter_mut().for_each(|dx| *dx = E::from_elem(2.0 * dx.to_f64()));
    }
    let of_features = [Some([70]), Some([70])];
    let by_tensors = |x: Tensor<2>, [gamma, beta]: [Option<Tensor<1>>; 2]| {
        layernorm_burn::add_layer_norm(x.clone(), x, gamma, beta, EPS).0
    };
    check::<E, P, 2, 1>("add and layer norm", FLAT, of_features, by_tensors, |call| {
        let (x, dy, mut out) = (Rows::new(call.x, 70)?, Rows::new(call.dy, 70)?, call.x.to_vec());
        let (y, mut saved) = (RowsMut::new(call.y, 70)?, Stats::new(37));
        let (residual, run) = (residual(x, &mut out)?, Run::default());
        layernorm::add_layer_norm(x, residual, call.params, y, Some(saved.as_mut()), run)?;
        let gradients = wanted(call.dx, call.gradients)?;
        let out = Rows::new(&out, 70)?;
        layernorm::add_layer_norm_backward(out, dy, call.params, Some(saved.as_ref()), gradients, run)?;
        twice(call.dx);
        Ok(())
    });
    let by_tensors = |x: Tensor<2>, [gamma, beta]: [Option<Tensor<1>>; 2]| {
        layernorm_burn::add_rms_norm(x.clone(), x, gamma, beta, EPS).0
    };
    check::<E, P, 2, 1>("add and RMS norm", FLAT, of_features, by_tensors, |call| {
        let (x, dy, mut out) = (Rows::new(call.x, 70)?, Rows::new(call.dy, 70)?, call.x.to_vec());
        let (residual, run) = (residual(x, &mut out)?, Run::default());
        layernorm::add_rms_norm(x, residual, call.params, RowsMut::new(call.y, 70)?, None, run)?;
        let gradients = wanted(call.dx, call.gradients)?;
        let out = Rows::new(&out, 70)?;
        layernorm::add_rms_norm_backward(out, dy, call.params, None, gradients, run)?;
        twice(call.dx);
        Ok(())
    });
}
