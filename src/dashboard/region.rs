//! License regions: where an app's metadata lives. Set once, when the app is made.

use std::fmt;
use std::str::FromStr;

/// A license region. The six of the contract, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LicenseRegion {
    ApNortheast1,
    ApSouth1,
    EuWest1,
    UsEast1,
    UsEast2,
    UsWest2,
}

/// Region, its code, and the tag that client ids and refresh tokens of its apps begin with: so that the token endpoint
/// knows which database to ask, and needs no global directory of apps. Tags are in people's configurations: never change
/// one.
const REGIONS: [(LicenseRegion, &str, &str); 6] = [
    (LicenseRegion::ApNortheast1, "aws-ap-northeast-1", "apne1"),
    (LicenseRegion::ApSouth1, "aws-ap-south-1", "aps1"),
    (LicenseRegion::EuWest1, "aws-eu-west-1", "euw1"),
    (LicenseRegion::UsEast1, "aws-us-east-1", "use1"),
    (LicenseRegion::UsEast2, "aws-us-east-2", "use2"),
    (LicenseRegion::UsWest2, "aws-us-west-2", "usw2"),
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no license region {0:?}; there are {known}", known = LicenseRegion::all().map(LicenseRegion::code).join(", "))]
pub struct UnknownRegion(pub String);

impl LicenseRegion {
    #[must_use]
    pub fn all() -> [Self; 6] {
        REGIONS.map(|(region, ..)| region)
    }

    /// `licenseRegionCode` of tokens.
    #[must_use]
    pub fn code(self) -> &'static str {
        REGIONS[self as usize].1
    }

    #[must_use]
    pub fn tag(self) -> &'static str {
        REGIONS[self as usize].2
    }

    /// The region whose tag the text begins with, up to `separator`.
    #[must_use]
    pub fn of_tagged(text: &str, separator: char) -> Option<Self> {
        let (tag, _) = text.split_once(separator)?;
        REGIONS.iter().find(|(.., known)| *known == tag).map(|(region, ..)| *region)
    }

    /// The `dbCode` of a region that configures none.
    #[must_use]
    pub fn default_db_code(self) -> String {
        format!("shard-01-{}", self.code().trim_start_matches("aws-"))
    }
}

impl FromStr for LicenseRegion {
    type Err = UnknownRegion;

    fn from_str(text: &str) -> Result<Self, UnknownRegion> {
        let found = REGIONS.iter().find(|(_, code, _)| *code == text);
        found.map(|(region, ..)| *region).ok_or_else(|| UnknownRegion(text.to_owned()))
    }
}

impl fmt::Display for LicenseRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_known_by_its_code_and_by_its_tag() {
        for region in LicenseRegion::all() {
            assert_eq!(region.code().parse(), Ok(region));
            assert_eq!(LicenseRegion::of_tagged(&format!("{}-abc", region.tag()), '-'), Some(region));
        }
        assert_eq!(LicenseRegion::of_tagged("use1", '-'), None);
        assert_eq!(LicenseRegion::UsEast1.default_db_code(), "shard-01-us-east-1");
        assert!("mars-1".parse::<LicenseRegion>().unwrap_err().to_string().contains("aws-eu-west-1"));
    }
}
