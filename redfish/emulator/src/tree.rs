//! A service tree: path to resource, without trailing slashes.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What a service serves. Cheap to clone after [`Emulator::start`](crate::Emulator::start) has shared it.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub resources: BTreeMap<String, Value>,
    /// `$metadata`, where it was not to be made from the resources.
    pub metadata: Option<String>,
}

/// A path as the tree has it.
pub(crate) fn normal(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed }
}

impl Tree {
    /// A mockup as the DMTF's mockup tools write it: `index.json` in folders named like paths, beginning above, at or below
    /// `redfish/v1`. Schema files are left out.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let below = |part: &str| folder.join(part);
        let (root, prefix) = if below("redfish/v1").is_dir() {
            (below("redfish"), "/redfish")
        } else if below("v1").is_dir() {
            (folder.to_owned(), "/redfish")
        } else {
            (folder.to_owned(), "/redfish/v1")
        };
        tree.load_folder(&root, prefix)?;
        Ok(tree)
    }

    fn load_folder(&mut self, folder: &Path, path: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let below = format!("{path}/{name}");
            if entry.file_type()?.is_dir() {
                if !matches!(name.as_str(), "Schemas" | "JsonSchemas" | "Registries") {
                    self.load_folder(&entry.path(), &below)?;
                }
            } else if name == "index.json" {
                let text = std::fs::read_to_string(entry.path())?;
                if let Ok(json) = serde_json::from_str(&text) {
                    self.resources.insert(path.to_owned(), json);
                }
            } else if name == "index.xml" && path.ends_with("$metadata") {
                self.metadata = Some(std::fs::read_to_string(entry.path())?);
            }
        }
        Ok(())
    }

    /// Adds a resource; its `@odata.id` is set.
    pub fn put(&mut self, path: &str, mut resource: Value) {
        let path = normal(path).to_owned();
        resource["@odata.id"] =
            Value::String(if path == "/redfish/v1" { "/redfish/v1/".into() } else { path.clone() });
        self.resources.insert(path, resource);
    }

    pub fn get_mut(&mut self, path: &str) -> Option<&mut Value> {
        self.resources.get_mut(normal(path))
    }

    /// `$metadata` that refers to the schemas of what is there (DSP0266 "OData metadata").
    pub(crate) fn metadata_text(&self) -> String {
        if let Some(text) = &self.metadata {
            return text.clone();
        }
        let mut namespaces: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for value in self.resources.values() {
            collect_types(value, &mut namespaces);
        }
        let mut text = String::from(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<edmx:Edmx xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\" Version=\"4.0\">\n",
        );
        for (schema, versions) in &namespaces {
            text += &format!(
                "  <edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/{schema}_v1.xml\">\n    <edmx:Include Namespace=\"{schema}\"/>\n"
            );
            for version in versions {
                text += &format!("    <edmx:Include Namespace=\"{version}\"/>\n");
            }
            text += "  </edmx:Reference>\n";
        }
        text += "  <edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/RedfishExtensions_v1.xml\">\n    <edmx:Include Namespace=\"RedfishExtensions.v1_0_0\" Alias=\"Redfish\"/>\n  </edmx:Reference>\n";
        text += "  <edmx:DataServices>\n    <Schema xmlns=\"http://docs.oasis-open.org/odata/ns/edm\" Namespace=\"Service\">\n      <EntityContainer Name=\"Service\" Extends=\"ServiceRoot.v1_0_0.ServiceContainer\"/>\n    </Schema>\n  </edmx:DataServices>\n</edmx:Edmx>\n";
        text
    }
}

fn collect_types(value: &Value, namespaces: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::Object(object) => {
            if let Some(kind) = object.get("@odata.type").and_then(Value::as_str) {
                let kind = kind.trim_start_matches('#');
                if let Some((namespace, _)) = kind.rsplit_once('.') {
                    let schema = namespace.split('.').next().unwrap_or(namespace);
                    let versions = namespaces.entry(schema.to_owned()).or_default();
                    if namespace != schema && !versions.iter().any(|v| v == namespace) {
                        versions.push(namespace.to_owned());
                    }
                }
            }
            object.values().for_each(|value| collect_types(value, namespaces));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_types(value, namespaces)),
        _ => {}
    }
}
