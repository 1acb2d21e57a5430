//! Writes a pipeline as diffusers' `save_pretrained(safe_serialization=True)` does.
//!
//! Source: diffusers `pipelines/pipeline_utils.py` and `models/modeling_utils.py`.

use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value, json};

use super::adapters::read_back;
use super::blank::{
    DIFFUSERS_STEM, SAFETY_CHECKER, TEXTS, TOKENIZER, TRANSFORMERS_STEM, read_text,
};
use super::{PipelineBase, XlConfig};
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::models::{Module, Values};
use crate::weights::{Dtype, HostTensor, header};

/// Where a model's files are written.
pub trait Sink {
    /// Begins a file.
    fn create<'a>(&'a mut self, path: &'a str) -> LocalBoxFuture<'a, Result<()>>;

    /// Appends to the file that was begun last.
    fn write(&mut self, bytes: Vec<u8>) -> LocalBoxFuture<'_, Result<()>>;

    /// Ends it.
    fn close(&mut self) -> LocalBoxFuture<'_, Result<()>>;
}

/// What is copied as it is from where the model was loaded, of a model.
const CONFIG: &[&str] = &["config.json"];

const EXTRACTOR: [&str; 2] = ["feature_extractor", "preprocessor_config.json"];

impl PipelineBase {
    /// Writes the model in diffusers' layout: configurations from `files`, which are those that it was loaded from,
    /// weights as they are kept on the device, with what is fused, and without adapters and learnt words.
    ///
    /// # Errors
    /// What `files` and `sink` say; [`Error::Gpu`].
    pub async fn save_pretrained(&self, files: &dyn ModelFiles, sink: &mut dyn Sink) -> Result<()> {
        self.check_resident("savePretrained")?;
        let mut copy = self.clone();
        copy.unload_lora();
        copy.unload_textual_inversion(None)?;
        let has_checker = copy.safety_checker.is_some();
        write(sink, "model_index.json", self.index(files).await?.into_bytes()).await?;
        let scheduler = Value::Object(self.scheduler.to_json());
        write(sink, "scheduler/scheduler_config.json", pretty(&scheduler)).await?;
        let texts = TEXTS.into_iter();
        let texts = texts.filter(|(name, _)| copy.texts.iter().any(|text| text.component == *name));
        let mut copied = vec![("vae", CONFIG), ("unet", CONFIG)];
        copied.extend(texts.flat_map(|(name, folder)| [(name, CONFIG), (folder, &TOKENIZER[..])]));
        if has_checker {
            copied.push((SAFETY_CHECKER, CONFIG));
        }
        for (component, names) in copied {
            for name in names {
                let path = format!("{component}/{name}");
                match files.read(&path).await {
                    Ok(bytes) if component == "unet" => {
                        write(sink, &path, copy.unet_config(&path, bytes)?).await?;
                    }
                    Ok(bytes) => write(sink, &path, bytes).await?,
                    // What a tokenizer may do without.
                    Err(Error::NotFound { .. }) if name.contains("token") => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut models: Vec<(&str, &str, &mut dyn Module)> = vec![
            ("vae", DIFFUSERS_STEM, &mut *copy.vae),
            ("unet", DIFFUSERS_STEM, &mut *copy.unet),
        ];
        for text in &mut copy.texts {
            models.push((text.component, TRANSFORMERS_STEM, &mut text.model));
        }
        if let Some(check) = &mut copy.safety_checker {
            let path = EXTRACTOR.join("/");
            write(sink, &path, read_text(files, &path).await?.into_bytes()).await?;
            models.push((SAFETY_CHECKER, TRANSFORMERS_STEM, check.checker()));
        }
        for (component, stem, model) in models {
            save(model, &format!("{component}/{stem}.safetensors"), sink).await?;
        }
        Ok(())
    }

    /// `config.json` of the UNet, which was read from `path`: as it is, unless it is another model's, of another size.
    fn unet_config(&self, path: &str, json: Vec<u8>) -> Result<Vec<u8>> {
        let mut config: Map<String, Value> =
            serde_json::from_slice(&json).map_err(|e| Error::config(path, e))?;
        let Some(size) = &self.unet.config().sample_size else { return Ok(json) };
        if config.get("sample_size") == Some(size) {
            return Ok(json);
        }
        config.insert("sample_size".into(), size.clone());
        Ok(pretty(&Value::Object(config)))
    }

    /// `model_index.json`, with what has changed since the model was loaded.
    async fn index(&self, files: &dyn ModelFiles) -> Result<String> {
        let path = "model_index.json";
        let mut index: Map<String, Value> = serde_json::from_str(&read_text(files, path).await?)
            .map_err(|e| Error::config(path, e))?;
        if let Some(class) = &self.scheduler.class_name {
            index.insert("scheduler".into(), json!(["diffusers", class]));
        }
        if let Some(config) = self.xl {
            let XlConfig { force_zeros_for_empty_prompt, is_cosxl_edit, add_watermarker } = config;
            let flags = [
                ("force_zeros_for_empty_prompt", force_zeros_for_empty_prompt),
                ("is_cosxl_edit", is_cosxl_edit),
                ("add_watermarker", add_watermarker),
            ];
            index.extend(flags.map(|(name, flag)| (name.into(), json!(flag))));
        } else if self.safety_checker.is_none() {
            for component in [SAFETY_CHECKER, EXTRACTOR[0]] {
                index.insert(component.into(), json!([null, null]));
            }
            index.insert("requires_safety_checker".into(), json!(false));
        }
        Ok(String::from_utf8_lossy(&pretty(&Value::Object(index))).into_owned())
    }
}

fn pretty(json: &Value) -> Vec<u8> {
    format!("{json:#}\n").into_bytes()
}

async fn write(sink: &mut dyn Sink, path: &str, bytes: Vec<u8>) -> Result<()> {
    sink.create(path).await?;
    sink.write(bytes).await?;
    sink.close().await
}

/// Writes a model's weights, one tensor after the other, so that no more than one is on the host.
async fn save(model: &mut dyn Module, path: &str, sink: &mut dyn Sink) -> Result<()> {
    let mut tensors = Vec::new();
    model.visit("", &mut |key, parameter| {
        if let Some(values) = parameter.values() {
            tensors.push((key.to_owned(), parameter.shape().to_vec(), values));
        }
    });
    let entries = tensors.iter().map(|(key, shape, values)| {
        let dtype = if values.is_packed() { Dtype::F16 } else { Dtype::F32 };
        (key.as_str(), dtype, shape.as_slice())
    });
    sink.create(path).await?;
    sink.write(header(entries)).await?;
    for (_, shape, values) in tensors {
        let tensor = match values {
            Values::Vector(vector) => HostTensor::from_f32(shape, &super::to_host(vector).await?),
            Values::Weight(matrix) => read_back(&matrix, shape).await?,
        };
        sink.write(tensor.bytes().to_vec()).await?;
    }
    sink.close().await
}
