//! Power and indicator lights.

use super::Client;
use crate::bmc::PowerAction;
use crate::error::{Cause, Result};
use crate::json::View;
use crate::model::{Action, ResetType, ResourcePath, System};
use crate::quirks::Quirk;
use serde_json::json;

impl PowerAction {
    /// What serves for it, the best first.
    fn reset_types(self) -> &'static [ResetType] {
        match self {
            Self::On => &[ResetType::On, ResetType::ForceOn],
            Self::GracefulOff => &[ResetType::GracefulShutdown],
            Self::ForceOff => &[ResetType::ForceOff],
            Self::GracefulRestart => &[ResetType::GracefulRestart],
            Self::ForceRestart => &[ResetType::ForceRestart, ResetType::PowerCycle],
            Self::PowerCycle => &[ResetType::PowerCycle, ResetType::FullPowerCycle, ResetType::ForceRestart],
            Self::Nmi => &[ResetType::Nmi],
            Self::PushButton => &[ResetType::PushPowerButton],
        }
    }
}

impl Client {
    pub(super) async fn reset_system(&self, path: &ResourcePath, action: PowerAction) -> Result<()> {
        let system: System = self.read(path).await?;
        // On for a server that is on is refused by some and restarts none; the wish is fulfilled.
        if let (PowerAction::On, Some(true)) =
            (action, system.power_state.as_ref().map(|state| state.is_on()))
        {
            return Ok(());
        }
        let reset = self.need(system.reset, "resetting this system")?;
        self.reset_by(&reset, action.reset_types(), &format!("{action:?}")).await
    }

    /// POSTs the first of `wanted` that the action allows.
    pub(super) async fn reset_by(&self, reset: &Action, wanted: &[ResetType], what: &str) -> Result<()> {
        let allowed = self.allowed_values(reset, "ResetType").await?;
        let chosen = match &allowed {
            Some(allowed) => {
                wanted.iter().find(|w| allowed.iter().any(|a| a.eq_ignore_ascii_case(w.as_str())))
            }
            // Not said anywhere. A service that should say (no rule that it does not) may take nothing.
            None if self.has(Quirk::NoAllowableValues).await? => wanted.first(),
            None => None,
        };
        let unsupported = || {
            let offered = allowed.as_ref().map_or("does not say what it offers".to_owned(), |a| a.join(", "));
            self.fail(Cause::Unsupported { what: format!("{what} (it offers: {offered})") })
        };
        let chosen = chosen.ok_or_else(unsupported)?;
        self.post(&reset.target, json!({"ResetType": chosen.as_str()})).await?;
        Ok(())
    }

    /// What an action says it takes for a parameter, there or in its ActionInfo.
    pub(super) async fn allowed_values(
        &self,
        action: &Action,
        parameter: &str,
    ) -> Result<Option<Vec<String>>> {
        if let Some(allowed) = action.allowed.get(parameter) {
            return Ok(Some(allowed.clone()));
        }
        let Some(info) = &action.info else { return Ok(None) };
        let json = match self.get(info).await {
            Ok(json) => json,
            Err(error) if matches!(error.cause, Cause::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = View(&json)
            .list("Parameters")
            .find(|view| view.text("Name").as_deref() == Some(parameter))
            .map(|view| view.texts("AllowableValues"));
        Ok(found.filter(|values| !values.is_empty()))
    }

    pub(super) async fn indicate(&self, path: &ResourcePath, lit: bool) -> Result<()> {
        let tagged = self.tagged(path).await?;
        let view = tagged.view();
        // LocationIndicatorActive replaces IndicatorLED since 2020.3; what the resource has is what it takes.
        let body = if view.flag("LocationIndicatorActive").is_some() {
            json!({"LocationIndicatorActive": lit})
        } else if let Some(now) = view.text("IndicatorLED") {
            let words = view.texts("IndicatorLED@Redfish.AllowableValues");
            let blinking = words.is_empty() && now != "Lit" || words.iter().any(|word| word == "Blinking");
            let on = if blinking { "Blinking" } else { "Lit" };
            json!({"IndicatorLED": if lit { on } else { "Off" }})
        } else {
            return Err(self.fail(Cause::Unsupported { what: format!("an indicator light at {path}") }));
        };
        self.patch(&tagged, body).await?;
        Ok(())
    }
}
