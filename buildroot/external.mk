include $(sort $(wildcard $(BR2_EXTERNAL_BASALT_PATH)/package/*/*.mk))
