//! Checkpoints of PyTorch, as safetensors through burn-store: its names weight and bias become gamma and beta.

use super::*;
use burn::module::Module;
use burn_store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
use layernorm_burn::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm,
    LayerNormConfig, QkNorm, QkNormConfig, RmsNorm, RmsNormConfig, ScaleNorm, ScaleNormConfig,
};

#[derive(Module, Debug)]
struct Model {
    layer: LayerNorm,
    rms: RmsNorm,
    group: GroupNorm,
    batch: BatchNorm,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self {
            layer: LayerNormConfig::new(4).init(device),
            rms: RmsNormConfig::new(4).init(device),
            group: GroupNormConfig::new(2, 4).init(device),
            batch: BatchNormConfig::new(4).init(device),
        }
    }
}

/// A file as `safetensors.torch.save_file` writes it, of vectors of four f32.
fn file(tensors: &[(&str, u64)]) -> Vec<u8> {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, seed) in tensors {
        let start = data.len();
        let values = vec_of::<f32, 1>(vector(*seed));
        data.extend(values.into_iter().flat_map(f32::to_le_bytes));
        let end = data.len();
        header.push(format!(r#""{name}":{{"dtype":"F32","shape":[4],"data_offsets":[{start},{end}]}}"#));
    }
    let header = format!("{{{}}}", header.join(","));
    let len = u64::try_from(header.len()).expect("a short header");
    [&len.to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn vector(seed: u64) -> Tensor<1> {
    tensor([4], seed, &Device::flex(), DType::F32)
}

const NAMES: [(&str, u64); 9] = [
    ("layer.weight", 1),
    ("layer.bias", 2),
    ("rms.weight", 3),
    ("group.weight", 4),
    ("group.bias", 5),
    ("batch.weight", 8),
    ("batch.bias", 9),
    ("batch.running_mean", 10),
    ("batch.running_var", 11),
];

#[test]
fn weights_and_statistics_of_pytorch_load() {
    let mut model = Model::new(&Device::flex());
    // The flag of training is Burn's own.
    let mut store = SafetensorsStore::from_bytes(Some(file(&NAMES)))
        .with_from_adapter(PyTorchToBurnAdapter)
        .allow_partial(true);
    let result = model.load_from(&mut store).expect("a checkpoint");
    assert!(result.errors.is_empty() && result.unused.is_empty(), "{result:?}");
    assert_eq!(result.applied.len(), NAMES.len(), "{result:?}");
    let loaded = [
        model.layer.gamma.val(),
        model.layer.beta.expect("a bias").val(),
        model.rms.gamma.val(),
        model.group.gamma.expect("a weight").val(),
        model.group.beta.expect("a bias").val(),
        model.batch.gamma.val(),
        model.batch.beta.val(),
        model.batch.running_mean.value(),
        model.batch.running_var.value(),
    ];
    for (loaded, (name, seed)) in loaded.into_iter().zip(NAMES) {
        assert_eq!(bits(loaded), bits(vector(seed)), "{name}");
    }
}

#[test]
fn they_go_back_under_the_names_of_pytorch() {
    let device = Device::flex();
    let mut model = Model::new(&device);
    model.layer.gamma = burn::module::Param::from_tensor(vector(5));
    let mut to = SafetensorsStore::from_bytes(None).with_to_adapter(BurnToPyTorchAdapter);
    model.save_into(&mut to).expect("saved");
    let bytes = to.get_bytes().expect("bytes");
    let text = String::from_utf8_lossy(&bytes);
    for (name, _) in NAMES {
        assert!(text.contains(&format!("\"{name}\"")), "{name} is missing");
    }
    let mut from = SafetensorsStore::from_bytes(Some(bytes)).with_from_adapter(PyTorchToBurnAdapter);
    let mut back = Model::new(&device);
    back.load_from(&mut from).expect("loaded");
    assert_eq!(bits(back.layer.gamma.val()), bits(vector(5)));
}

#[derive(Module, Debug)]
struct Others {
    instance: InstanceNorm,
    attention: QkNorm,
    scale: ScaleNorm,
}

#[test]
fn names_that_burn_store_does_not_know_are_mapped_by_a_pattern() {
    let device = Device::flex();
    let mut model = Others {
        instance: InstanceNormConfig::new(4).init(&device),
        attention: QkNormConfig::new(4).init(&device),
        scale: ScaleNormConfig::new(4).init(&device),
    };
    let names = [
        ("attention.q_norm.weight", 1),
        ("attention.k_norm.weight", 2),
        ("instance.weight", 3),
        ("instance.bias", 4),
    ];
    let mut store = SafetensorsStore::from_bytes(Some(file(&names)))
        .with_key_remapping(r"(q_norm|k_norm|instance)\.weight$", "$1.gamma")
        .with_key_remapping(r"instance\.bias$", "instance.beta")
        .allow_partial(true);
    model.load_from(&mut store).expect("a checkpoint");
    let QkNorm { q_norm, k_norm } = model.attention;
    let loaded = [q_norm.gamma, k_norm.gamma, model.instance.gamma, model.instance.beta];
    for (loaded, (name, seed)) in loaded.into_iter().zip(names) {
        assert_eq!(bits(loaded.expect("a parameter").val()), bits(vector(seed)), "{name}");
    }
    assert_eq!(vec_of::<f32, 1>(model.scale.gamma.val()), [2.0], "what a file lacks stays");
}
