export default {
  en: { "admin.title": "admin" },
  zh: { "admin.title": "admin" },
};
