/* The guest's file systems: the kernel's, the scratch space, and a root other than the initramfs. */
#ifndef LAB_MOUNTS_H
#define LAB_MOUNTS_H

/* Mounts, or says why not; a guest without one of these may still serve. */
void mount_at(const char *type, const char *at, unsigned long flags, const char *data);
void link_devices(void);
/* Waits for the device, and makes it the root, with /dev, /proc and /sys moved into it. */
void enter_root(const char *device, const char *type);
/* `scratch` is the size of /tmp in bytes, as a word; NULL leaves /tmp to the root. */
void mount_scratch(const char *scratch);

#endif
