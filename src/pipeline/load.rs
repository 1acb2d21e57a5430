//! Builds a pipeline from a model's files.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::error::Result;
use crate::hub::{ModelFiles, Traffic, finish_beside};
use crate::models::{Placement, WeightDtype};
use crate::weights::{self, WeightFiles};
use burn::tensor::DType;
use futures_util::future::try_join_all;
use web_time::Instant;

use super::base::PipelineBase;
use super::blank::{
    Blank, MemoryChoice, Part, PipelineClass, SAFETY_CHECKER, TRANSFORMERS_STEM,
    read_safety_checker,
};
use super::speed::Speed;
use super::turns::Storage;
use super::{
    Components, Prompts, Residency, Room, SafetyCheck, StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
};

/// Where and how a pipeline computes.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where weights go and how they are kept.
    pub placement: Placement,
    /// The type of activations: `F32` or `F16`. Norms and softmax are `f32` in any case.
    pub dtype: DType,
    /// Whether to load the model's safety checker, where it has one.
    pub safety_checker: bool,
    /// Whether to compile a GPU's kernels while the weights are on their way, for pictures of the
    /// size that the model was made for. Otherwise the first edit waits for them.
    pub warm_up: bool,
    /// What the first edit will be asked for. The texts are encoded as soon as the text encoders are
    /// there, while the rest of the model is on its way, and edits with the same texts do not wait for
    /// them. Of no use where models take turns.
    pub prompts: Option<Prompts>,
}

/// How far loading is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LoadEvent<'a> {
    /// The configurations were read: what the weights will take.
    Needs(MemoryChoice),
    /// More bytes have arrived.
    Download {
        /// The component, e.g. `unet`.
        component: &'a str,
        /// The file's path inside the model.
        file: &'a str,
        /// Bytes that have arrived of all files together.
        loaded: u64,
        /// Bytes of all files together.
        total: u64,
        /// How many of the bytes loaded came from the cache.
        cached: u64,
        /// Bytes from the network in a second, of late; 0 when none came.
        speed: f64,
        /// Seconds left at that speed, once there is one.
        remaining: Option<f64>,
    },
    /// A component is complete on the device.
    Component {
        /// The component, e.g. `unet`.
        component: &'a str,
    },
    /// [`LoadOptions::prompts`] are encoded, by all text encoders that were read.
    Encoded,
}

/// What a model is, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// The class that its `model_index.json` names.
    pub class: PipelineClass,
    /// Bytes of all files that loading reads.
    pub files: u64,
    /// Bytes of its weights that are not on this machine.
    pub missing: u64,
    /// Bytes of storage that these take, of which those of single precision are kept as halves unless they are wanted
    /// as they are.
    pub storage: u64,
    /// When its models are on a device, and what they take there.
    pub residency: Residency,
}

/// The least time between two reports of one file.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// A loaded pipeline, of the class that its model names.
#[derive(Debug, Clone)]
pub enum InstructPix2Pix {
    /// Of Stable Diffusion 1.5 and its family.
    Sd(StableDiffusionInstructPix2PixPipeline),
    /// Of Stable Diffusion XL.
    Xl(StableDiffusionXLInstructPix2PixPipeline),
}

impl Deref for InstructPix2Pix {
    type Target = PipelineBase;

    fn deref(&self) -> &PipelineBase {
        match self {
            Self::Sd(pipeline) => pipeline,
            Self::Xl(pipeline) => pipeline,
        }
    }
}

impl DerefMut for InstructPix2Pix {
    fn deref_mut(&mut self) -> &mut PipelineBase {
        match self {
            Self::Sd(pipeline) => pipeline,
            Self::Xl(pipeline) => pipeline,
        }
    }
}

impl InstructPix2Pix {
    /// Loads a model, as the class that its `model_index.json` names: configurations first, then all
    /// components side by side, each tensor when its bytes are there. Of components that are `given` nothing
    /// is read. With `wanted`, no other class will do.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) and other network errors;
    /// [`Error::Unsupported`](crate::Error::Unsupported) when `model_index.json`
    /// names another pipeline; what parsing and filling the components may say.
    pub async fn load(
        files: &dyn ModelFiles,
        options: LoadOptions,
        given: Components,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        // Models are large on their own, and futures that hold them would fill a small stack.
        let given = Box::new(given);
        Box::pin(Self::load_boxed(files, options, given, wanted, on_event)).await
    }

    async fn load_boxed(
        files: &dyn ModelFiles,
        options: LoadOptions,
        given: Box<Components>,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let checker = options.safety_checker;
        if let Some(prompts) = &options.prompts {
            prompts.check()?;
        }
        let mut blank = Box::pin(Blank::read(files, &given, checker, wanted)).await?;
        on_event(LoadEvent::Needs(blank.choice(options.placement.weights)));
        blank.check(&given, &options.placement)?;
        #[cfg(feature = "wgpu")]
        let warm_up = options.warm_up.then(|| blank.warm_up(&options));
        // All are opened before the first is read, so that the total is known from the start.
        let mut opened = Vec::new();
        for (name, stem, mut part) in blank.components(&given) {
            let weights = open(files, name, stem, &mut part, options.placement.weights).await?;
            opened.push((name, weights, part));
        }
        let fill = fill(files, opened, Some(&options), on_event);
        #[cfg(feature = "wgpu")]
        let fill = async {
            match warm_up {
                Some(warm_up) => warm_up.alongside(files, fill).await,
                None => fill.await,
            }
        };
        fill.await?;
        Box::pin(blank.finish(given.safety_checker, options, on_event)).await
    }

    /// Reads a model's configurations alone (and its safety checker, where that is asked for). The pipeline's models
    /// are on the device only in their turn, so that it needs room for the largest of them in place of all:
    /// `edit_with` reads them from the same files for each edit, which is slow unless `files` keeps them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn open(
        files: &dyn ModelFiles,
        options: LoadOptions,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let given = Box::new(Components::default());
        let checker = options.safety_checker;
        let mut blank = Box::pin(Blank::read(files, &given, checker, wanted)).await?;
        on_event(LoadEvent::Needs(blank.choice(options.placement.weights)));
        blank.check(&given, &options.placement)?;
        blank.in_turn(files, Storage::Folders, options, on_event).await
    }

    /// When the models of a pipeline are on a device that has this room for them. Of the model no more than the
    /// configurations are read. Activations come on top of the weights.
    ///
    /// # Errors
    /// As [`load`](Self::load), except those of tensors, and as [`Residency::plan`].
    pub async fn plan(
        files: &dyn ModelFiles,
        weights: WeightDtype,
        safety_checker: bool,
        room: Room,
    ) -> Result<Residency> {
        let given = Box::new(Components::default());
        let mut blank = Box::pin(Blank::read(files, &given, safety_checker, None)).await?;
        blank.plan(&given, weights, room)
    }

    /// What a model takes, of the class that is `wanted` or of any. Configurations are read, and of weights only their
    /// sizes: most of what would keep the model from loading is found out.
    ///
    /// # Errors
    /// As [`load`](Self::load), except those of tensors, and as [`Residency::plan`].
    pub async fn requirements(
        files: &dyn ModelFiles,
        weights: WeightDtype,
        safety_checker: bool,
        wanted: Option<PipelineClass>,
        room: Room,
    ) -> Result<Requirements> {
        let given = Box::new(Components::default());
        let mut blank = Box::pin(Blank::read(files, &given, safety_checker, wanted)).await?;
        let (class, residency) = (blank.class, blank.plan(&given, weights, room)?);
        let mut opened = Vec::new();
        for (name, stem, mut part) in blank.components(&given) {
            opened.push(open(files, name, stem, &mut part, weights).await?);
        }
        let bytes: u64 = opened.iter().map(WeightFiles::size).sum();
        let (missing, storage) = (files.missing(), files.storage());
        let files = files.traffic().total() + bytes;
        Ok(Requirements { class, files, missing, storage, residency })
    }

    /// The class.
    pub fn class(&self) -> PipelineClass {
        match self {
            Self::Sd(_) => PipelineClass::Sd,
            Self::Xl(_) => PipelineClass::Xl,
        }
    }

    /// Reads everything that [`load`](Self::load) would read, and keeps nothing but what `files` keeps: fills a cache
    /// without a device. `weights` and `safety_checker` decide on the files, as there.
    ///
    /// # Errors
    /// As [`load`](Self::load), except those of tensors.
    pub async fn download(
        files: &dyn ModelFiles,
        weights: WeightDtype,
        safety_checker: bool,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<()> {
        let given = Box::new(Components::default());
        let mut blank = Box::pin(Blank::read(files, &given, safety_checker, None)).await?;
        let mut opened = Vec::new();
        for (name, stem, mut part) in blank.components(&given) {
            let weights = open(files, name, stem, &mut part, weights).await?;
            opened.push((name, weights, part));
        }
        fill(files, opened, None, on_event).await
    }
}

impl StableDiffusionInstructPix2PixPipeline {
    /// Loads a model of this class, as [`InstructPix2Pix::load`] does.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load`].
    pub async fn load(
        files: &dyn ModelFiles,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        // Too large a future for the stack of whoever waits.
        Box::pin(Self::load_with(files, options, Components::default(), on_event)).await
    }

    /// The same with some components given, of which nothing is read then.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load`].
    pub async fn load_with(
        files: &dyn ModelFiles,
        options: LoadOptions,
        given: Components,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let wanted = Some(PipelineClass::Sd);
        match InstructPix2Pix::load(files, options, given, wanted, on_event).await? {
            InstructPix2Pix::Sd(pipeline) => Ok(pipeline),
            InstructPix2Pix::Xl(_) => unreachable!("the class was asked for"),
        }
    }
}

impl Blank {
    /// Loads the safety checker, where there is one.
    pub(super) async fn fill_safety_checker(
        &mut self,
        files: &dyn ModelFiles,
        options: &LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<()> {
        let Some((checker, _)) = &mut self.safety else { return Ok(()) };
        let dtype = options.placement.weights;
        let opened = WeightFiles::open(files, SAFETY_CHECKER, TRANSFORMERS_STEM, dtype).await?;
        let part = (SAFETY_CHECKER, opened, Part::Other(&mut **checker));
        fill_beside(files, vec![part], Some(options), on_event).await?;
        finish_beside(files).await
    }

    /// A pipeline whose models take turns, and come from `storage`. The safety checker, which stays, comes from `files`.
    pub(super) async fn in_turn(
        mut self,
        files: &dyn ModelFiles,
        storage: Storage,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<InstructPix2Pix> {
        self.fill_safety_checker(files, &options, on_event).await?;
        let mut pipeline = Box::pin(self.finish(None, options, on_event)).await?;
        pipeline.in_turn = Some(storage);
        Ok(pipeline)
    }
}

impl PipelineBase {
    /// Loads a safety checker from the folder `folder` of a model, with the model's feature
    /// extractor, and checks every picture from now on.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load`].
    pub async fn load_safety_checker(
        &mut self,
        files: &dyn ModelFiles,
        folder: &str,
    ) -> Result<()> {
        let (mut checker, extractor) = read_safety_checker(files, folder).await?;
        let weights = self.options().placement.weights;
        let opened = WeightFiles::open(files, folder, TRANSFORMERS_STEM, weights).await?;
        let part = (SAFETY_CHECKER, opened, Part::Other(&mut *checker));
        fill_beside(files, vec![part], Some(self.options()), &mut |_| {}).await?;
        finish_beside(files).await?;
        self.set_safety_checker(Some(SafetyCheck::new(*checker, extractor).await?));
        Ok(())
    }
}

/// Opens the files of a component, whose storage is counted as its model's.
async fn open<'a>(
    files: &'a dyn ModelFiles,
    component: &str,
    stem: &str,
    part: &mut Part<'_>,
    weights: WeightDtype,
) -> Result<WeightFiles<'a>> {
    let mut opened = WeightFiles::open(files, component, stem, weights).await?;
    opened.expect(part.model());
    Ok(opened)
}

/// Fills models from their opened files as `options` say, or passes over those without any, and tells
/// how far it is. All files are read side by side, those in front first.
pub(super) async fn fill(
    files: &dyn ModelFiles,
    opened: Vec<(&str, WeightFiles<'_>, Part<'_>)>,
    options: Option<&LoadOptions>,
    on_event: &mut dyn FnMut(LoadEvent<'_>),
) -> Result<()> {
    fill_beside(files, opened, options, on_event).await?;
    files.finish().await
}

/// The same where these are not all that there is to read.
async fn fill_beside(
    files: &dyn ModelFiles,
    opened: Vec<(&str, WeightFiles<'_>, Part<'_>)>,
    options: Option<&LoadOptions>,
    on_event: &mut dyn FnMut(LoadEvent<'_>),
) -> Result<()> {
    let weights: u64 = opened.iter().map(|(_, files, _)| files.size()).sum();
    let total = files.traffic().total() + weights;
    files.prepare().await?;
    let report = RefCell::new(Report {
        files,
        total,
        speed: Speed::new(Instant::now(), files.traffic().fetched),
        told: BTreeSet::new(),
        last: None,
        on_event,
    });
    let is_text = |part: &Part<'_>| matches!(part, Part::Text(_));
    let encoders = Cell::new(opened.iter().filter(|(_, _, part)| is_text(part)).count());
    let (report, encoders) = (&report, &encoders);
    let parts = opened.into_iter().map(|(component, opened, mut part)| async move {
        let mut on_progress = |progress: weights::Progress<'_>| report.borrow_mut().tell(progress);
        let Some(options) = options else {
            weights::pass_over(opened, &mut on_progress).await?;
            report.borrow_mut().event(LoadEvent::Component { component });
            return Ok(());
        };
        let placement = &options.placement;
        let unused = weights::load(part.model(), opened, placement, &mut on_progress).await?;
        if !unused.is_empty() {
            log::debug!("{component}: unused keys {unused:?}");
        }
        report.borrow_mut().event(LoadEvent::Component { component });
        if let (Part::Text(text), Some(prompts)) = (part, &options.prompts) {
            text.prepare(prompts, options)?;
            encoders.set(encoders.get() - 1);
            if encoders.get() == 0 {
                report.borrow_mut().event(LoadEvent::Encoded);
            }
        }
        Ok(())
    });
    let result = try_join_all(parts).await;
    if let Err(error) = result {
        files.stop().await;
        return Err(error);
    }
    Ok(())
}

/// Tells how far a download is.
struct Report<'a> {
    files: &'a dyn ModelFiles,
    /// Bytes of all files together.
    total: u64,
    speed: Speed,
    /// Files that were told of.
    told: BTreeSet<String>,
    /// What was told last, and when.
    last: Option<(Instant, Traffic)>,
    on_event: &'a mut dyn FnMut(LoadEvent<'_>),
}

impl Report<'_> {
    fn event(&mut self, event: LoadEvent<'_>) {
        (self.on_event)(event);
    }

    fn tell(&mut self, progress: weights::Progress<'_>) {
        let (now, traffic, total) = (Instant::now(), self.files.traffic(), self.total);
        let is_new = !self.told.contains(progress.file);
        let due = self.last.is_none_or(|(at, before)| {
            let complete = traffic.total() == total && traffic != before;
            is_new || complete || now - at >= REPORT_EVERY
        });
        if !due {
            return;
        }
        if is_new {
            self.told.insert(progress.file.to_owned());
        }
        self.last = Some((now, traffic));
        let loaded = traffic.total();
        let bytes_per_second = self.speed.update(now, traffic.fetched);
        self.event(LoadEvent::Download {
            component: progress.component,
            file: progress.file,
            loaded,
            total,
            cached: traffic.cached,
            speed: bytes_per_second,
            remaining: (bytes_per_second > 0.0)
                .then(|| total.saturating_sub(loaded) as f64 / bytes_per_second),
        });
    }
}
