################################################################################
#
# basalt
#
################################################################################

# A local directory: Buildroot neither downloads nor vendors, the crates are in it.
BASALT_VERSION = local
BASALT_SITE = $(call qstrip,$(BR2_PACKAGE_BASALT_SOURCE_DIR))
BASALT_SITE_METHOD = local
BASALT_LICENSE = Apache-2.0
BASALT_LICENSE_FILES = LICENSE
BASALT_CARGO_BUILD_OPTS = \
	-p basalt-daemon \
	-p basalt-cli

define BASALT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/release/basalt-dataplane \
		$(TARGET_DIR)/usr/bin/basalt-dataplane
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/release/basalt \
		$(TARGET_DIR)/usr/bin/basalt
endef

define BASALT_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 \
		$(@D)/image/units/basalt-dataplane.service \
		$(TARGET_DIR)/usr/lib/systemd/system/basalt-dataplane.service
endef

define BASALT_USERS
	basalt -1 basalt -1 * /var/lib/basalt - disk Basalt
endef

$(eval $(cargo-package))
