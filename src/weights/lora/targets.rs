//! The layers of a pipeline that adapters can be put beside.

use std::collections::BTreeMap;

use crate::models::Module;
use crate::names::edit_distance;

/// The layers of a pipeline's models, by the names that checkpoints give them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Targets {
    components: Vec<(&'static str, Component)>,
}

/// The layers of one model.
#[derive(Debug, Clone, Default, PartialEq)]
struct Component {
    /// The shapes of the layers' weights.
    shapes: BTreeMap<String, Vec<usize>>,
    /// The layers by their names with `_` for `.`, which kohya's trainers use.
    flat: BTreeMap<String, String>,
}

/// Where a key of an adapter belongs: a component's name and a layer's path in it.
pub type Target = (&'static str, String);

impl Targets {
    /// The layers of `models`, each by its component's name, e.g. `unet`.
    pub fn new(models: &mut [(&'static str, &mut dyn Module)]) -> Self {
        let components = models.iter_mut().map(|(name, model)| {
            let mut component = Component::default();
            model.visit("", &mut |path, parameter| {
                let Some(layer) = path.strip_suffix(".weight") else { return };
                let shape = parameter.shape().to_vec();
                if parameter.as_weight().is_some() {
                    component.flat.insert(layer.replace('.', "_"), layer.to_owned());
                    component.shapes.insert(layer.to_owned(), shape);
                }
            });
            (*name, component)
        });
        Self { components: components.collect() }
    }

    /// The shape of a layer's weight.
    pub fn shape(&self, (component, path): &Target) -> Option<&[usize]> {
        self.component(component)?.shapes.get(path).map(Vec::as_slice)
    }

    /// The names of the components.
    pub fn components(&self) -> impl Iterator<Item = &'static str> {
        self.components.iter().map(|(name, _)| *name)
    }

    fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|(found, _)| *found == name).map(|(_, component)| component)
    }

    /// A layer by its path in a component, or in any when none is named.
    pub fn find(&self, component: Option<&str>, path: &str) -> Option<Target> {
        self.search(component, |layers| layers.shapes.contains_key(path).then(|| path.to_owned()))
    }

    /// A layer by its path with `_` for `.`.
    pub fn find_flat(&self, component: Option<&str>, path: &str) -> Option<Target> {
        self.search(component, |layers| layers.flat.get(path).cloned())
    }

    fn search(
        &self,
        component: Option<&str>,
        find: impl Fn(&Component) -> Option<String>,
    ) -> Option<Target> {
        let wanted = |name: &str| component.is_none_or(|component| component == name);
        let mut found = self.components.iter().filter(|(name, _)| wanted(name));
        found.find_map(|(name, layers)| Some((*name, find(layers)?)))
    }

    /// Residual blocks of the UNet's first stage: what turns the block numbers of the original
    /// checkpoints into diffusers'.
    pub fn layers_per_block(&self) -> usize {
        let Some(unet) = self.component("unet") else { return 0 };
        let exists =
            |i: &usize| unet.shapes.contains_key(&format!("down_blocks.0.resnets.{i}.conv1"));
        (0..).take_while(exists).count()
    }

    /// The layers whose names are most like `key`.
    pub fn nearest(&self, key: &str, count: usize) -> Vec<String> {
        // A key may be of any length; the names here are not.
        let key: String = key.chars().take(160).collect::<String>().replace('.', "_");
        let names = self.components.iter().flat_map(|(name, component)| {
            component.shapes.keys().map(move |path| format!("{name}.{path}"))
        });
        let mut names: Vec<(usize, String)> = names
            .map(|name| (edit_distance(key.as_bytes(), name.replace('.', "_").as_bytes()), name))
            .collect();
        names.sort();
        names.into_iter().take(count).map(|(_, name)| name).collect()
    }
}
